"""A verdict as the stores keep it: the members of a model's answer, the model's name and the version of this format.

    {"format":1,"model":"openai/gpt-4o","severity":"critical","category":"storage","confidence":"high",
     "summary":"The disk fills up.","recommendations":["Make room."]}

Nothing else is kept: no prompt, and of the alerts nothing but what the verdict says. Whoever can write to the store
could write anything, so what is read is checked as a model's answer is.
"""

from __future__ import annotations

import json
import re
from typing import Final

from proxy.classification import answers
from proxy.classification.classification import (
    RECOMMENDATION_LENGTH,
    RECOMMENDATIONS,
    SUMMARY_LENGTH,
    Classification,
)
from proxy.classification.verdicts import Cached
from proxy.errors import ClassifierInvalidAnswer

FORMAT: Final = 1
LIMIT: Final = 16 * 1024
"""Bytes beyond which no adapter reads a record. The longest of ours has a quarter."""
AT_MOST: Final = 366 * 24 * 3600.0
"""Seconds that a verdict is kept, whatever was asked for. More can only be a clock that was wrong."""
# As providers name models: no markup, no control characters, no address.
_MODEL: Final = re.compile(r"(?!.*//)[\w.:/@+ -]{0,256}")
_NO_MODEL: Final = re.compile(r"[^\w.:/@+ -]|(?<=/)/")


def written(verdict: Classification) -> bytes:
    """Return the record of `verdict`; a model's name without what people's chats would make something of."""
    model = answers.plain(_NO_MODEL.sub("_", verdict.model)[:256])
    record = {"format": FORMAT, "model": model, **answers.members(verdict)}
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def read(record: bytes, left: float) -> Cached | None:
    """Return the verdict of a `record` that is good for `left` seconds; None for whatever is not one of ours."""
    try:
        members = json.loads(record)
    except (ValueError, RecursionError):
        return None
    if not isinstance(members, dict) or members.get("format") != FORMAT:
        return None
    model = members.get("model")
    if not isinstance(model, str) or not _MODEL.fullmatch(model) or answers.plain(model) != model:
        return None
    texts = members.get("recommendations")
    if not isinstance(texts, list) or len(texts) > RECOMMENDATIONS or not _fits(members.get("summary"), SUMMARY_LENGTH):
        return None
    if not all(_fits(text, RECOMMENDATION_LENGTH) for text in texts):
        return None
    try:
        return Cached(answers.verdict(members, model, restored=True), left)
    except ClassifierInvalidAnswer:
        return None


def _fits(text: object, length: int) -> bool:
    # What we wrote was cut before. To clean whatever somebody else wrote would hold up alerts.
    return isinstance(text, str) and len(text) <= length
