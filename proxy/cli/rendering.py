"""The command that shows what would leave for the model: `render-prompt`."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxy.cli import texts

if TYPE_CHECKING:
    from proxy.classification.prompts import Prompts
    from proxy.config import Settings

_ABOUT = "show what would leave for the model"
_DESCRIPTION = (
    "Shows what the model would be told and shown about each alert of a POST body, masked, as the proxy would send it. "
    "Asks nobody, and needs neither a running proxy nor a key."
)


def add_command(commands: Any) -> argparse.ArgumentParser:
    """Add the command to a parser; the caller adds the settings that shape a prompt, and says what runs it."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "render-prompt", help=_ABOUT, description=_DESCRIPTION, allow_abbrev=False
    )
    parser.add_argument("body", metavar="FILE", help="an array of alerts in JSON, as Prometheus posts it; - reads them")
    parser.add_argument("--config.file", dest="file", type=Path, metavar="FILE", help="settings in YAML")
    parser.add_argument(
        "-o", "--output", choices=["text", "json"], default="text", help="json: the chats as they leave"
    )
    return parser


def run(body: str, output: str, settings: Settings) -> int:
    """Print what would leave about the alerts in the file `body` (`-`: standard input). Raises ConfigError."""
    from proxy.app import chosen_prompts  # late: the other commands need none of it
    from proxy.errors import ClassifierUnusable, DecodeError

    prompts = chosen_prompts(settings)
    try:
        found = list(_rendered(_read(body), prompts))
    except OSError as exc:
        return _failed(f"{body}: cannot read the file: {exc.strerror}")
    except DecodeError:
        return _failed(f"{body}: want a JSON array of alerts, as Prometheus posts it to /api/v2/alerts")
    except ClassifierUnusable as exc:
        return _failed(str(exc))
    text = json.dumps(found, indent=2) if output == "json" else texts.prompts(found, prompts.version)
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding))
    return 0


def _failed(message: str) -> int:
    print(texts.plain(message), file=sys.stderr)
    return 1


def _read(body: str) -> bytes:
    return sys.stdin.buffer.read() if body == "-" else Path(body).read_bytes()


def _rendered(body: bytes, prompts: Prompts) -> Iterator[Mapping[str, Any]]:
    """Yield what leaves about each alert, or why nothing does. Raises DecodeError, ClassifierUnusable."""
    from proxy.alert import fingerprint
    from proxy.gateway import alerts

    batch = alerts.decode(body)
    for item in batch.items:
        try:
            alert = item.read()
        except ValueError as exc:
            yield {"fingerprint": None, "alertname": None, "messages": [], "why_nothing": f"its labels: {exc}"}
            continue
        known = {"fingerprint": fingerprint(alert.labels), "alertname": alert.name}
        if not (batch.usual and item.usual):
            yield {**known, "messages": [], "why_nothing": "it is written as Prometheus would not write it"}
            continue
        prompt = prompts.render(alert)
        contents = [message["content"] for message in prompt.messages]
        yield {
            **known,
            "prompt_version": prompts.version,
            "messages": prompt.messages,
            "characters": sum(map(len, contents)),
            "tokens": sum(map(_tokens, contents)),
            "masked": prompt.masked.counts,
        }


def _tokens(text: str) -> int:
    """Return about how many tokens `text` is: four letters of English are one, and one of most other scripts is."""
    plain = sum(c.isascii() for c in text)
    return math.ceil(plain / 4) + len(text) - plain
