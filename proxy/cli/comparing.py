"""`classify --models`: several models asked about the same alerts, and what they say in figures."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from proxy.cli import compared, texts
from proxy.cli.arguments import read_by
from proxy.cli.posted import Posted
from proxy.config.kinds import Between

if TYPE_CHECKING:
    from tqdm import tqdm

    from proxy.app.comparing import Comparing, Subject
    from proxy.classification.comparison import Call, Opinion, Spent
    from proxy.classification.rules import Rules
    from proxy.config import Settings
    from proxy.config.models import ModelName

INTERRUPTED: Final = 130
"""The exit status after Ctrl-C, as shells have it."""
_WIDE: Final = 10_000
"""Columns of what is no terminal: whoever reads it later has a wide one, or a program."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what makes `classify` compare."""
    parser.add_argument(
        "--models",
        type=_models,
        metavar="MODEL,MODEL",
        help="compare these: PROVIDER/MODEL or PROVIDER/MODEL@BASE_URL, as in llm.fallbacks, and rules",
    )
    parser.add_argument(
        "--repeat", type=read_by(Between(1, 20)), metavar="N", help="with --models: ask so often, 1 to 20 (default: 1)"
    )


def _models(text: str) -> Sequence[ModelName | None]:
    from proxy.app.comparing import read_models  # late: the other commands need none of it

    try:
        return read_models(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None


def run(found: Sequence[Posted], arguments: argparse.Namespace, settings: Settings) -> int:
    """Ask the models of `arguments` about the alerts, and print what they say. Raises ConfigError.

    Interrupted, it prints what is known by then.
    """
    from proxy.app import chosen_rules
    from proxy.app.comparing import RULES, Comparing, subjects
    from proxy.telemetry import configure_logging

    rules = chosen_rules(settings)
    usual = [one.alert for one in found if one.alert is not None and one.usual]
    about = subjects(settings, usual)
    names = [RULES if model is None else str(model) for model in arguments.models]
    comparing = Comparing(settings, rules, arguments.models, about, arguments.repeat or 1)
    configure_logging("warning", settings.log.format)
    interrupted = False
    if about:
        try:
            with _progress(comparing):
                asyncio.run(comparing.run())
        except KeyboardInterrupt:
            interrupted = True
    report: dict[str, Any] = {
        "alerts": len(usual),
        "left_out": len(found) - len(usual),
        "repeat": arguments.repeat or 1,
        "calls": {"planned": comparing.planned, "ended": len(comparing.calls)},
        "interrupted": interrupted,
        **_figures(names, about, comparing, rules),
    }
    width = shutil.get_terminal_size((_WIDE, 0)).columns if sys.stdout.isatty() else _WIDE
    texts.say(json.dumps(report, indent=2) if arguments.output == "json" else compared.text(report, width))
    if interrupted:
        return INTERRUPTED
    silent = [one for one in report["models"] if one["asked"] and not one["verdicts"]]
    for one in silent:
        print(texts.plain(f"{one['name']} gave no verdict at all: {compared.why(one)}"), file=sys.stderr)
    return 1 if silent else 0


@contextlib.contextmanager
def _progress(comparing: Comparing) -> Iterator[None]:
    """Show on standard error how far it is, if that is a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    tqdm.monitor_interval = 0  # no thread that looks after slow bars: Ctrl-C shall find nothing to wait for
    # Drawn after each call: they take seconds, and there may be few.
    bar: tqdm[Any] = tqdm(total=comparing.planned, unit="call", leave=False, file=sys.stderr, mininterval=0, miniters=1)
    with bar, logging_redirect_tqdm():
        comparing.on_call = bar.update
        yield


def _figures(
    names: Sequence[str], about: Sequence[Subject], comparing: Comparing, rules: Rules
) -> Mapping[str, Sequence[Mapping[str, Any]]]:
    """Return what the calls that have ended say, by model and by class."""
    from proxy.classification.comparison import agreement, author_agreement, opinion, unanimous

    calls: list[list[list[Call]]] = [[[] for _ in about] for _ in names]
    for call in comparing.calls:
        calls[call.model][call.subject].append(call)
    opinions = [
        [opinion(call.verdict for call in of_class if call.verdict is not None) for of_class in of_model]
        for of_model in calls
    ]
    ruled = [opinion([rules.classify(one.alert)]) for one in about]
    authors = [rules.author_severity(one.alert) for one in about]
    models = [
        {
            "name": name,
            **_of_model([call for of_class in calls[n] for call in of_class], opinions[n], comparing.spent[n]),
            "agreement": {
                "author": asdict(author_agreement(zip(opinions[n], authors, strict=True))),
                "rules": asdict(agreement(zip(opinions[n], ruled, strict=True))),
                "models": {
                    other: asdict(agreement(zip(opinions[n], opinions[m], strict=True)))
                    for m, other in enumerate(names)
                    if m != n
                },
            },
        }
        for n, name in enumerate(names)
    ]
    classes = [
        {
            "alertname": one.alert.name,
            "labels": dict(one.alert.labels),
            "alerts": one.alerts,
            "author_severity": authors[n],
            "agree": unanimous(of_class[n] for of_class in opinions),
            "verdicts": {
                name: _said(opinions[m][n], sum(call.verdict is None for call in calls[m][n]))
                for m, name in enumerate(names)
            },
        }
        for n, one in enumerate(about)
    ]
    return {"models": models, "classes": classes}


def _of_model(calls: Sequence[Call], opinions: Sequence[Opinion | None], spent: Spent) -> Mapping[str, Any]:
    from proxy.classification.comparison import failures, latency, steadiness

    verdicts = sum(call.verdict is not None for call in calls)
    median, longest = latency(calls) or (None, None)
    usage = spent.usage
    return {
        "asked": len(calls),
        "verdicts": verdicts,
        "failed": [
            {"reason": reason, "error": error, "calls": count} for (reason, error), count in failures(calls).items()
        ],
        "self_agreement": steadiness(opinions),
        "latency_seconds": {"p50": median, "max": longest},
        "requests": usage.requests,
        "tokens": {"input": usage.prompt_tokens, "output": usage.completion_tokens},
        "cost_usd": usage.cost_usd,
        "cost_per_1000_usd": spent.cost_per_thousand(verdicts),
    }


def _said(opinion: Opinion | None, failed: int) -> Mapping[str, Any]:
    known = asdict(opinion) if opinion is not None else dict.fromkeys(("severity", "category", "confidence"))
    return {"times": 0, "of": 0, **known, "failed": failed}
