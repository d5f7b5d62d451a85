"""The command that shows what would leave for the model: `render-prompt`."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxy.cli import posted, texts
from proxy.cli.posted import Posted

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
    from proxy.errors import ClassifierUnusable

    prompts = chosen_prompts(settings)
    try:
        found = list(_rendered(posted.read(body), prompts))
    except (posted.Unreadable, ClassifierUnusable) as exc:
        return texts.complain(str(exc))
    texts.say(json.dumps(found, indent=2) if output == "json" else texts.prompts(found, prompts.version))
    return 0


def _rendered(found: Sequence[Posted], prompts: Prompts) -> Iterator[Mapping[str, Any]]:
    """Yield what leaves about each alert, or why nothing does. Raises ClassifierUnusable."""
    from proxy.alert import fingerprint

    for one in found:
        if one.alert is None:
            yield {"fingerprint": None, "alertname": None, "messages": [], "why_nothing": one.why_unread}
            continue
        known = {"fingerprint": fingerprint(one.alert.labels), "alertname": one.alert.name}
        if not one.usual:
            yield {**known, "messages": [], "why_nothing": posted.UNUSUAL}
            continue
        prompt = prompts.render(one.alert)
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
