"""The command `classify`, and the test of a table of rules by `check-config`."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxy.cli import comparing, posted, texts
from proxy.cli.posted import Posted

if TYPE_CHECKING:
    from proxy.alert import Alert
    from proxy.app.one_off import Asked
    from proxy.classification.rules import Rules
    from proxy.classification.service import Verdict
    from proxy.config import Settings

_ABOUT = "show what the model and the rules say about each alert, or compare models"
_DESCRIPTION = (
    "Asks about each alert of a POST body, as the proxy would, and shows the verdicts in order: the model's, when "
    "llm.enabled is true, else the rules' and where the rule stands that decided. With --models it asks several models "
    "about the same alerts, and compares them. Needs no running proxy, and leaves nothing behind."
)


def add_command(commands: Any) -> argparse.ArgumentParser:
    """Add the command to a parser; the caller adds the settings, and says what runs it."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "classify", help=_ABOUT, description=_DESCRIPTION, allow_abbrev=False
    )
    parser.set_defaults(usage=parser.error)
    parser.add_argument("body", metavar="FILE", help="an array of alerts in JSON, as Prometheus posts it; - reads them")
    parser.add_argument("--config.file", dest="file", type=Path, metavar="FILE", help="settings in YAML")
    parser.add_argument("--rules", action="store_true", help="ask the rules alone, whatever llm.enabled says")
    comparing.add_options(parser)
    parser.add_argument("-o", "--output", choices=["text", "json"], default="text", help="json: for programs")
    return parser


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Do what the command's arguments ask for. Raises ConfigError."""
    if arguments.rules and arguments.models:
        arguments.usage("want --rules or --models, not both; --models takes rules as one of them")
    if arguments.repeat is not None and not arguments.models:
        arguments.usage("--repeat is for --models")
    try:
        found = posted.read(arguments.body)
        if arguments.models:
            return comparing.run(found, arguments, settings)
        return _classify(found, arguments.output, settings, by_rules=arguments.rules or not settings.llm.enabled)
    except posted.Unreadable as exc:
        return texts.complain(str(exc))
    except KeyboardInterrupt:
        return comparing.INTERRUPTED


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


def _classify(found: Sequence[Posted], output: str, settings: Settings, *, by_rules: bool) -> int:
    from proxy.app import chosen_rules  # late: the other commands need none of it
    from proxy.classification.service import Verdict

    rules = chosen_rules(settings)
    asked = [one.alert for one in found if one.alert is not None and (by_rules or one.usual)]
    said: Sequence[Verdict] = [Verdict(rules.classify(alert), reason="no_model") for alert in asked]
    errors: Mapping[str, str] = {}
    if asked and not by_rules:
        answered = asyncio.run(_asked(asked, settings, rules))
        said, errors = answered.verdicts, answered.errors
    verdicts = iter(said)
    shown = []
    for one in found:
        if one.alert is None:
            shown.append(_nothing(None, one.why_unread))
        elif by_rules or one.usual:
            shown.append(_shown(one.alert, next(verdicts), rules))
        else:
            shown.append(_nothing(one.alert, posted.UNUSUAL))
    texts.say(json.dumps(shown, indent=2) if output == "json" else texts.verdicts(shown))
    for name, error in errors.items():
        print(texts.plain(f"warning: {name} failed when it was asked last: {error}"), file=sys.stderr)
    if by_rules or not said or any(not _failure(one) for one in said):
        return 0
    return texts.complain(f"no model gave a verdict: {_why(said[0])}")


async def _asked(alerts: Sequence[Alert], settings: Settings, rules: Rules) -> Asked:
    from proxy.app.one_off import one_off
    from proxy.telemetry import configure_logging

    configure_logging("warning", settings.log.format)
    async with one_off(settings, rules) as ask:
        return await ask(alerts)


def _failure(verdict: Verdict) -> bool:
    """Return whether the model was to be asked and failed; one that is unsure, or undecided, works."""
    return verdict.reason not in {"", "unsure", "undecided"}


def _why(verdict: Verdict) -> str:
    return f"{verdict.reason}: {verdict.error}" if verdict.error else verdict.reason


def _nothing(alert: Alert | None, why: str) -> Mapping[str, Any]:
    from proxy.alert import fingerprint

    known = (None, None) if alert is None else (fingerprint(alert.labels), alert.name)
    return {"fingerprint": known[0], "alertname": known[1], "why_nothing": why}


def _shown(alert: Alert, said: Verdict, rules: Rules) -> Mapping[str, Any]:
    """Return a verdict, and who gave it."""
    from proxy.alert import fingerprint
    from proxy.classification.classification import Source

    verdict = said.now
    if verdict is None:
        return _nothing(alert, f"the model has none ({_why(said)}), and llm.enable_fallback is false")
    ruled = verdict.source is Source.RULES
    return {
        "fingerprint": fingerprint(alert.labels),
        "alertname": alert.name,
        "severity": verdict.severity,
        "category": verdict.category,
        "confidence": verdict.confidence,
        "summary": verdict.summary,
        "recommendations": verdict.recommendations,
        "runbook": verdict.runbook,
        "source": verdict.source,
        "model": verdict.model,
        "rule": rules.classify(alert).rule if ruled else "",
        "explained": asdict(rules.explain(alert)) if ruled else None,
        "reason": said.reason,
        "error": said.error,
    }
