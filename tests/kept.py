"""Decisions as a store keeps them, for tests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from proxy.alert import Identity, identity
from proxy.decisions.decision import Decision
from proxy.decisions.store import DecisionStore, Kept


def an_identity(name: str) -> Identity:
    return identity({"alertname": name})


def kept(name: str = "A", severity: str | None = "critical", *, life: int = 1, left: float = 3600, **more: Any) -> Kept:
    """A decision on the alert `name`; without a severity it goes bare."""
    texts = more.pop("texts", {"ai_source": "rules"})
    decision = (
        Decision(an_identity(name), {"ai_severity": severity}, texts) if severity else Decision(an_identity(name))
    )
    return Kept(decision, life, left, more.pop("original", f'{{"alertname":"{name}"}}'), **more)


def bare(found: Iterable[Kept]) -> dict[Identity, tuple[Decision, int]]:
    """What may be compared of `found`: what is left of it becomes less all the time."""
    return {k.decision.identity: (k.decision, k.life) for k in found}


async def loaded(store: DecisionStore) -> dict[Identity, Kept]:
    return {kept.decision.identity: kept async for slice_ in store.load() for kept in slice_}
