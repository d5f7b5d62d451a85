"""Whether the model answers: one question, about an alert that nobody has sent."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

from proxy.alert import Alert
from proxy.app.one_off import one_off
from proxy.app.probing.findings import Finding, Level
from proxy.app.rules import chosen_rules
from proxy.config import Settings, format_duration
from proxy.errors import ConfigError
from proxy.policy import MinConfidence

CHECK: Final = "model"
_PATIENCE: Final = timedelta(seconds=15)
"""For the answer. To load what speaks to it takes up to ten seconds before, once for each start of a proxy."""
_MADE_UP: Final = {
    "alertname": "DiskWillFillSoon",
    "severity": "warning",
    "instance": "made-up.example:9100",
    "mountpoint": "/made/up",
}


async def asked_model(settings: Settings) -> AsyncIterator[Finding]:
    """Ask the first model once: no retries, no fallbacks, nothing in batches, and no cap of a day is counted on.

    An answer that is no verdict is asked for once more, as always.
    """
    llm = settings.llm
    if not llm.enabled:
        yield Finding(CHECK, Level.OK, "not asked: llm.enabled is false, the rules decide")
        return
    name = f"{llm.provider}/{llm.model}"
    timeout = min(llm.timeout, _PATIENCE)
    # As sure as it likes: what is tested is whether it answers.
    once = replace(llm, timeout=timeout, max_retries=0, fallbacks=(), batch_size=1, min_confidence=MinConfidence.LOW)
    now = datetime.now(UTC)
    alert = Alert(_MADE_UP, {"summary": "A made-up alert of check-config --probe."}, now, now + timedelta(minutes=5))
    try:
        async with one_off(replace(settings, llm=once), chosen_rules(settings)) as ask:
            begun = time.monotonic()
            said = await ask([alert])
            took = time.monotonic() - begun
    except ConfigError as exc:
        yield Finding(CHECK, Level.ERROR, f"{name}: {exc.problems[0]}")
        return
    (verdict,) = said.verdicts
    if verdict.reason == "undecided":
        yield Finding(CHECK, Level.OK, f"{name} answers within {took:.1f} s, and has nothing to say about the alert")
    elif verdict.reason or verdict.now is None:
        why = f"{verdict.reason}: {verdict.error}" if verdict.error else verdict.reason
        instead = "the rules decide in its place" if llm.enable_fallback else "alerts go bare meanwhile"
        more = f", after {', '.join(map(str, llm.fallbacks))}, which were not asked" if llm.fallbacks else ""
        yield Finding(CHECK, Level.ERROR, f"{name} has no verdict: {why}; {instead}{more}")
    else:
        yield Finding(CHECK, Level.OK, f"{name} gave a verdict within {took:.1f} s")
    if not verdict.reason and took > settings.enrichment.budget.total_seconds():
        yield Finding(
            CHECK,
            Level.WARNING,
            f"{name} took {took:.1f} s, longer than enrichment.budget "
            f"({format_duration(settings.enrichment.budget)}): alerts of a new class would get the labels of the "
            "rules, and the model's text later; ask a faster model, or give it more time",
        )
