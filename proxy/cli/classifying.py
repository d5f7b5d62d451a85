"""The commands about the rules: `classify`, and the test of a table by `check-config`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxy.cli import texts

if TYPE_CHECKING:
    from proxy.classification.rules import Rules
    from proxy.config import Settings

_ABOUT = "show what the rules say about each alert, and which of them decide"
_DESCRIPTION = (
    "Shows the verdict of the rules on each alert of a POST body, in order, and where the rule stands that gave the "
    "severity and the category. Asks nobody, and needs no running proxy."
)


def add_command(commands: Any) -> argparse.ArgumentParser:
    """Add the command to a parser; the caller says what runs it."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "classify", help=_ABOUT, description=_DESCRIPTION, allow_abbrev=False
    )
    parser.add_argument("body", metavar="FILE", help="an array of alerts in JSON, as Prometheus posts it; - reads them")
    parser.add_argument("--config.file", dest="file", type=Path, metavar="FILE", help="settings in YAML")
    parser.add_argument("--rules", action="store_true", help="ask the rules alone; there is no other way yet")
    parser.add_argument("-o", "--output", choices=["text", "json"], default="text", help="json: an array of verdicts")
    return parser


def run(body: str, output: str, settings: Settings) -> int:
    """Print the verdicts on the alerts in the file `body` (`-`: standard input). Raises ConfigError."""
    from proxy.app import chosen_rules  # late: the other commands need none of it
    from proxy.errors import DecodeError

    rules = chosen_rules(settings)
    try:
        found = list(_classified(sys.stdin.buffer.read() if body == "-" else Path(body).read_bytes(), rules))
    except OSError as exc:
        return _failed(f"{body}: cannot read the file: {exc.strerror}")
    except DecodeError:
        return _failed(f"{body}: want a JSON array of alerts, as Prometheus posts it to /api/v2/alerts")
    text = json.dumps(found, indent=2) if output == "json" else texts.verdicts(found)
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding))
    return 0


def check_file(path: Path, *, quiet: bool = False) -> int:
    """Test the table in a file as it would be used, before the shipped one; `quiet`: say only what is wrong.

    Raises ConfigError for what cannot be read.
    """
    from proxy.classification.rules import Rules
    from proxy.classification.rules.checking import problems

    rules = Rules.with_own(path)
    for problem in (found := problems(rules)):
        print(texts.plain(problem), file=sys.stderr)
    if not found and not quiet:
        table = rules.tables[0]
        examples = sum(len(rule.examples) for rule in table.rules) + len(table.cases)
        print(
            f"{path}: OK, {len(table.rules)} rules, {len(table.overrides)} overrides, {examples} tests and examples, "
            f"hash {rules.hash} with the shipped table"
        )
    return 1 if found else 0


def _failed(message: str) -> int:
    print(texts.plain(message), file=sys.stderr)
    return 1


def _classified(body: bytes, rules: Rules) -> Iterator[Mapping[str, Any]]:
    """Yield the verdict on each alert, or why there is none. Raises DecodeError."""
    from proxy.alert import fingerprint
    from proxy.gateway import alerts

    for item in alerts.decode(body).items:
        try:
            alert = item.read()
        except ValueError as exc:
            yield {"fingerprint": None, "alertname": None, "why_nothing": f"its labels: {exc}"}
            continue
        verdict, why = rules.classify(alert), rules.explain(alert)
        yield {
            "fingerprint": fingerprint(alert.labels),
            "alertname": alert.name,
            "severity": verdict.severity,
            "category": verdict.category,
            "confidence": verdict.confidence,
            "summary": verdict.summary,
            "recommendations": verdict.recommendations,
            "runbook": verdict.runbook,
            "source": verdict.source,
            "rule": verdict.rule,
            "explained": asdict(why),
        }
