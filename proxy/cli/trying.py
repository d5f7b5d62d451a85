"""The command for authors of classifiers: `try-classifier`."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from proxy import classifiers
from proxy.cli import posted, texts

if TYPE_CHECKING:
    from proxy.classification.classification import Classification
    from proxy.classification.prompts import Prompt
    from proxy.config import Settings

_ABOUT = "try a classifier of your own on the alerts of a POST body"
_DESCRIPTION = (
    "Asks the classifier that the settings name (llm.provider: classifier) about each alert of a POST body, and prints "
    "what it was shown and what it says. It runs in this process: what it prints is seen, and so are the tracebacks of "
    "what it raises. Needs no running proxy."
)
# By its name: it may lead to LiteLLM, which has no business in a proxy. This process is none.
_TRIAL: Final = "proxy.classification.worker.trial"


def add_command(commands: Any) -> argparse.ArgumentParser:
    """Add the command to a parser; the caller adds the settings, and says what runs it."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "try-classifier", help=_ABOUT, description=_DESCRIPTION, allow_abbrev=False
    )
    parser.add_argument("body", metavar="FILE", help="an array of alerts in JSON, as Prometheus posts it; - reads them")
    parser.add_argument("--config.file", dest="file", type=Path, metavar="FILE", help="settings in YAML")
    return parser


def run(body: str, settings: Settings) -> int:
    """Ask about the alerts in the file `body` (`-`: standard input), and print the answers. Raises ConfigError."""
    from proxy.app import chosen_prompts  # late: the other commands need none of it
    from proxy.errors import ClassifierUnusable

    if settings.llm.provider != classifiers.PROVIDER:
        return texts.complain(f"llm.provider is {settings.llm.provider}, want {classifiers.PROVIDER}: one of your own")
    try:
        found = posted.read(body)
        prompts = chosen_prompts(settings)
        shown = [(one.alert.name, prompts.render(one.alert)) for one in found if one.alert is not None]
        for n, one in enumerate(found, 1):
            if one.alert is None:
                texts.complain(f"alert {n} of {len(found)} is left out: {one.why_unread}")
        return asyncio.run(_ask(shown, settings))
    except (posted.Unreadable, ClassifierUnusable) as exc:
        return texts.complain(str(exc))


async def _ask(shown: Sequence[tuple[str, Prompt]], settings: Settings) -> int:
    from proxy.classification.worker.protocol import Ask, Configure, Model
    from proxy.errors import ClassifierError, ClassifierUndecided

    llm = settings.llm
    model = Model(llm.provider, llm.model, llm.api_key.reveal(), llm.base_url)
    seconds = llm.timeout.total_seconds()
    asks = [
        Ask(n, 0, prompt.messages, seconds, prompt.labels, prompt.annotations) for n, (_, prompt) in enumerate(shown)
    ]
    failed = 0
    # Nothing is tried again here, nor streamed.
    configure = Configure([model], max_retries=0, max_tokens=llm.max_tokens, stream=False)
    async with importlib.import_module(_TRIAL).trial(configure) as ask_about:
        for (name, prompt), ask in zip(shown, asks, strict=True):
            shows = json.dumps({"labels": prompt.labels, "annotations": prompt.annotations})
            _say(f"=== alert {ask.call + 1} of {len(shown)}: {name}", f"shown: {shows}")
            begun = time.monotonic()
            try:
                verdict = prompt.restored(await ask_about(ask))
            except ClassifierError as exc:
                _say(f"NO VERDICT: {exc.reason}: {exc}; the rules decide, or the next of llm.fallbacks")
                failed += not isinstance(exc, ClassifierUndecided)
            else:
                _say(*_lines(verdict))
            _say(f"in {time.monotonic() - begun:.3f} s", "")
    _say(f"alerts: {len(shown)}, failed: {failed}")
    return 1 if failed else 0


def _lines(verdict: Classification) -> Sequence[str]:
    return [
        f"severity {verdict.severity}, category {verdict.category}, confidence {verdict.confidence}",
        f"summary: {verdict.summary or '(none)'}",
        *(f"{n}. {step}" for n, step in enumerate(verdict.recommendations, 1)),
    ]


def _say(*lines: str) -> None:
    for line in lines:
        texts.say(texts.plain(line))
