"""What it saves to ask a model about several alerts at once: calls, tokens and time, by `llm.batch_size`.

    python tests/bench/batches.py [--differs 15] [--first 0.5] [--rate 80]

The real worker and LiteLLM ask a server on loopback that writes as fast as it is told: `--first` seconds until an
answer begins, `--rate` tokens a second. Tokens are those of the requests and answers as they are on the wire, counted
by the tokenizer of gpt-4o. Of `--differs` percent of the alerts the model's labels are not the rules', so that they
are asked about alone. The model's words are made up, as long as models' are.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import statistics
import sys
import time
import zlib
from datetime import timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

import structlog
from batched import shown
from fake_provider import FakeProvider, Paced, Request
from storms import Storm
from workers import Watched, a_model, config

from proxy.alert import Alert
from proxy.app.model import said_by_rules
from proxy.classification.breaker import CircuitBreaker
from proxy.classification.chain import Batching, Chain, Link
from proxy.classification.classification import Category, Classification, Severity
from proxy.classification.rules import Rules
from proxy.classification.worker.configuration import WorkerState
from proxy.classification.worker.providers import LITELLM_ENVIRONMENT

SIZES = (1, 2, 5, 10, 20)
CONCURRENCY = 4


class Writer:
    """A model that says what the rules say, but for a share of the alerts, and writes as fast as it is told."""

    def __init__(self, alerts: list[Alert], rules: Rules, options: argparse.Namespace) -> None:
        os.environ.update(LITELLM_ENVIRONMENT)
        import litellm

        self._count = litellm.token_counter
        self._ruled = {alert.name: rules.classify(alert) for alert in alerts}
        self._options = options
        self.tokens = [0, 0]
        self.calls = 0

    def _members(self, name: str) -> dict[str, Any]:
        ruled, which = self._ruled[name], zlib.crc32(name.encode())
        severity, category = ruled.severity, ruled.category
        if which % 100 < self._options.differs:
            severity = next(one for one in Severity if one is not severity)
            category = next(one for one in Category if one is not category)
        return {
            "severity": severity,
            "category": category,
            "confidence": "high",
            "summary": f"What {name} watches has been over its limit for longer than it should be, and it gets worse.",
            "recommendations": [
                "Look at the dashboard of the service for when it began, and what was deployed then.",
                "Compare with the other instances; if only one is affected, restart that one.",
                "Find out what uses the most of it, and whether there is more than yesterday.",
            ],
        }

    def __call__(self, request: Request) -> Paced:
        alerts = shown(request)
        if "" in alerts:
            answer: object = self._members(alerts[""])
        else:
            verdicts = [{"id": n, "alertname": name, **self._members(name)} for n, name in alerts.items()]
            answer = {"verdicts": verdicts}
        text = json.dumps(answer)
        written = self._count(model="gpt-4o", text=text)
        self.calls += 1
        self.tokens[0] += self._count(model="gpt-4o", messages=request.json["messages"])
        self.tokens[1] += written
        return Paced(text, self._options.first, written / self._options.rate)


async def measure(size: int, alerts: list[Alert], rules: Rules, options: argparse.Namespace) -> dict[str, float]:
    writer = Writer(alerts, rules, options)
    labelled: dict[str, float] = {}
    done: list[float] = []
    async with FakeProvider(writer) as provider:
        watched = Watched(config(a_model("openai", provider.url), stream=True, max_tokens=400))
        async with watched.worker as worker:
            await watched.reach(WorkerState.READY)
            batching = Batching(size, kind=lambda _: True, holds=lambda alert, said: said_by_rules(rules, alert, said))
            chain = Chain(
                [Link("m", worker.classifier(0), CircuitBreaker(None))],
                timeout=timedelta(seconds=60),
                concurrency=CONCURRENCY,
                batching=batching if size > 1 else None,
            )
            await worker.ask(0, Alert({"alertname": alerts[0].name}))  # the first call loads more of LiteLLM
            writer.calls, writer.tokens = 0, [0, 0]
            begun = time.monotonic()

            async def ask(alert: Alert) -> None:
                def early(_: Classification) -> None:
                    labelled.setdefault(alert.name, time.monotonic() - begun)

                early(await chain.classify(alert, early))
                done.append(time.monotonic() - begun)

            await asyncio.gather(*map(ask, alerts))
    return {
        "calls": writer.calls / len(alerts),
        "in": writer.tokens[0] / len(alerts),
        "out": writer.tokens[1] / len(alerts),
        "all": writer.tokens[0] + 4 * writer.tokens[1],
        "first": min(labelled.values()),
        "labels": statistics.mean(labelled.values()),
        "last": max(done),
    }


async def run(options: argparse.Namespace) -> None:
    storm, rules = Storm(alerts=options.alerts, names=options.alerts), Rules()
    alerts = [Alert(one["labels"], one["annotations"]) for one in (storm.alert(n, 0) for n in range(options.alerts))]
    print(
        f"{options.alerts} alerts, {CONCURRENCY} calls at once, {options.first} s until {options.rate} tokens a second"
    )
    print("batch_size  calls/alert  tokens in  out  cost  labels of the first, on average  all text")
    whole = None
    for size in SIZES:
        got = await measure(size, alerts, rules, options)
        whole = whole or got
        print(
            f"{size:10}  {got['calls']:11.2f}  {got['in']:9.0f}  {got['out']:3.0f}  ×{got['all'] / whole['all']:.2f}"
            f"  {got['first']:18.1f} s  {got['labels']:8.1f} s  {got['last']:6.1f} s"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--alerts", type=int, default=60)
    parser.add_argument("--differs", type=int, default=15, metavar="PERCENT")
    parser.add_argument("--first", type=float, default=0.5, metavar="SECONDS")
    parser.add_argument("--rate", type=float, default=80, metavar="TOKENS_A_SECOND")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
