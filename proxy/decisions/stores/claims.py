"""What the stores have in common: who wins a claim, and a decision's texts."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Final

from proxy.alert import LabelSet
from proxy.decisions.store import Kept

SLICE: Final = 250
"""Decisions in one slice of a load: a few milliseconds of work."""
AT_MOST: Final = 7 * 24 * 3600.0
"""Seconds that a decision lives after it was claimed last."""


def settle(held: Kept | None, new: Kept, *, shared: bool) -> Kept:
    """Return what holds after `new` was claimed where `held` was kept; `held` itself when nothing changes.

    In a `shared` store a life stays that fires beyond the beginning of the one that is to replace it: another proxy,
    which did not hear of its end, has gone on with it.

    A life that is replaced is over even if its labels come again. Kept on, it would be there for a second proxy to
    replace, with other labels, after the first was told that its own hold.
    """
    if held is None or (new.replaces and held.life == new.replaces and not (shared and _goes_on(held, new))):
        return replace(new, replaces=0, begun=None)
    if held.decision.labels == new.decision.labels and held.life == new.life:
        return replace(new, replaces=0, begun=None)
    return held if held.left >= new.left else replace(held, left=new.left)


def _goes_on(held: Kept, new: Kept) -> bool:
    return held.resolved_at is None and new.begun is not None and (held.fires_until or 0.0) >= new.begun


def written(labels: LabelSet) -> str:
    """Return `labels` as JSON, the same text for the same labels."""
    text = json.dumps(labels, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    try:
        text.encode()
    except UnicodeEncodeError:  # half a character, which a model may write, is no UTF-8
        return json.dumps(labels, sort_keys=True, separators=(",", ":"))
    return text


def read(text: str | bytes) -> LabelSet:
    """Return the labels that `written` wrote; ValueError when it was somebody else."""
    try:
        labels = json.loads(text)
    except RecursionError as exc:
        raise ValueError("labels are no such thing") from exc
    if not isinstance(labels, dict) or not all(isinstance(value, str) for value in labels.values()):
        raise ValueError("labels are an object of texts")
    return labels
