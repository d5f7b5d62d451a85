"""The command for authors of classifiers: `try-classifier`."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from proxy import classifiers
from proxy.cli import texts

if TYPE_CHECKING:
    from proxy.classification.classification import Classification
    from proxy.classification.prompts import Prompt, Prompts
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
    from proxy.errors import ClassifierUnusable, DecodeError

    if settings.llm.provider != classifiers.PROVIDER:
        return _failed(f"llm.provider is {settings.llm.provider}, want {classifiers.PROVIDER}: one of your own")
    try:
        given = sys.stdin.buffer.read() if body == "-" else Path(body).read_bytes()
    except OSError as exc:
        return _failed(f"{body}: cannot read the file: {exc.strerror}")
    try:
        return asyncio.run(_ask(list(_shown(given, chosen_prompts(settings))), settings))
    except DecodeError:
        return _failed(f"{body}: want a JSON array of alerts, as Prometheus posts it to /api/v2/alerts")
    except ClassifierUnusable as exc:
        return _failed(str(exc))


def _shown(body: bytes, prompts: Prompts) -> Iterator[tuple[str, Prompt]]:
    """Yield the name of each alert that can be read, and what may leave of it. Raises DecodeError."""
    from proxy.gateway import alerts

    for item in alerts.decode(body).items:
        try:
            alert = item.read()
        except ValueError:
            continue
        yield alert.name, prompts.render(alert)


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


def _failed(message: str) -> int:
    print(texts.plain(message), file=sys.stderr)
    return 1


def _say(*lines: str) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    for line in lines:
        # At once: what the classifier prints shall stand where it belongs.
        print(texts.plain(line).encode(encoding, "backslashreplace").decode(encoding), flush=True)
