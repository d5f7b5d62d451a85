"""Decisions for people: found by labels or by Alertmanager's fingerprint, and forgotten when somebody says so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

import structlog

from proxy.alert import Fingerprint, Identity, fingerprint
from proxy.decisions.living import Listed, Living
from proxy.decisions.reach import Reach
from proxy.decisions.store import DecisionStore
from proxy.errors import LookupTimeout, StoreError, StoreTimeout
from proxy.matchers import Matcher, matches_all

log = structlog.get_logger(__name__)

BREATH: Final = 256
"""After so many decisions of a long row the alerts get their turn."""
FINGERPRINTS: Final = 50
"""As above where fingerprints are taken, of which one costs as much as matching ten decisions."""
PATIENCE: Final = 30.0
"""Seconds after which looking for a fingerprint is given up. Among 200,000 alerts it should be found by then."""
SLICE: Final = 256
"""How many the store forgets at a time."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A decision that holds, and the names under which people know its alert."""

    identity: Identity
    fingerprint: Fingerprint
    """Of the labels as the sender gave them."""
    alertmanager_fingerprint: Fingerprint
    """Of the labels as Alertmanager has them, ours among them."""
    listed: Listed

    def shown(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        decision = self.listed.decision
        return {
            "fingerprint": self.fingerprint,
            "alertmanager_fingerprint": self.alertmanager_fingerprint,
            "labels": dict(self.listed.original),
            "added": {"labels": dict(decision.labels), "annotations": dict(decision.annotations)},
            "state": "resolved" if self.listed.resolved_at else "firing",
            "expires_in_seconds": round(self.listed.left),
            "former": [dict(labels) for labels in self.listed.former],
        }


@dataclass(frozen=True, slots=True)
class Found:
    """What was found, and how much of it there is."""

    entries: Sequence[Entry]
    """What was decided last comes first."""
    total: int
    """How many match, those that are left out by the limit among them."""
    unlisted: int
    """How many alerts are known by no more than a hash, so that nobody can tell whether they match: they went bare
    because there was no room for their decisions."""


class Directory:
    """Looks through the hot copy. Alerts go on meanwhile, so what it finds may be a second old."""

    def __init__(
        self, living: Living, store: DecisionStore, reach: Reach, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._living = living
        self._store = store
        self._reach = reach
        self._monotonic = monotonic
        self._scanning = asyncio.Lock()

    async def find(self, matchers: Sequence[Matcher], limit: int) -> Found:
        """Return decisions on alerts for whose original labels all `matchers` hold."""
        identities = await self.matching(matchers)
        entries: list[Entry] = []
        for identity in identities[:limit]:
            if listed := self._listed(identity):
                entries.append(_entry(identity, listed))
                if len(entries) % FINGERPRINTS == 0:
                    await asyncio.sleep(0)
        return Found(entries, len(identities), len(self._living) - len(self._living.identities()))

    async def matching(self, matchers: Sequence[Matcher]) -> list[Identity]:
        """Return the alerts for whose original labels all `matchers` hold, the one decided last first."""
        return [identity async for identity, listed in self._all(BREATH) if matches_all(matchers, listed.original)]

    async def get(self, wanted: str) -> Entry | None:
        """Return the decision on the alert that has the fingerprint `wanted`, with or without our labels.

        Raises LookupTimeout when there are too many alerts to look through: nobody keeps their fingerprints.
        """
        async with self._scanning:  # one is seconds of work where there are many alerts, and several would starve them
            until = self._monotonic() + PATIENCE
            async with aclosing(self._all(FINGERPRINTS)) as everything:
                async for identity, listed in everything:
                    if any(wanted == name for name in _fingerprints(listed)):
                        return _entry(identity, listed)
                    if self._monotonic() > until:
                        raise LookupTimeout(f"not found within {PATIENCE:g} s, among too many alerts; ask by labels")
        return None

    async def forget(self, identities: Collection[Identity]) -> int:
        """Drop decisions, here and on every proxy of the store; return how many there were.

        Raises StoreError when a shared store is away: the other proxies would go on with what this one has dropped. A
        store of this proxy alone is told, and the decision is dropped in any case.
        """
        forgotten = 0
        for slice_ in _slices(list(identities)):
            await asyncio.sleep(0)
            some = [identity for identity in slice_ if self._listed(identity)]
            if not some:
                continue
            if self._store.shared and not self._reach.up:
                raise _away(forgotten, self._reach.error)
            try:
                await self._tell(some)
            except StoreError as exc:
                self._reach.lost(exc)
                if self._store.shared:
                    raise _away(forgotten, str(exc)) from exc
                log.warning("the store still holds decisions that were forgotten", decisions=len(some), error=str(exc))
            for identity in some:
                self._living.forget(identity)
            forgotten += len(some)
        return forgotten

    async def _tell(self, some: Sequence[Identity]) -> None:
        try:
            await self._store.forget(some)
        except StoreTimeout:
            await self._store.forget(some)  # one hiccup is no outage

    async def _all(self, breath: int) -> AsyncGenerator[tuple[Identity, Listed], None]:
        for n, identity in enumerate(reversed(self._living.identities()), 1):
            if listed := self._listed(identity):
                yield identity, listed
            if n % breath == 0:
                await asyncio.sleep(0)

    def _listed(self, identity: Identity) -> Listed | None:
        """Return the decision, unless it is over and only waits to be swept out."""
        listed = self._living.listed(identity)
        return listed if listed and listed.left > 0 else None


def _fingerprints(listed: Listed) -> Iterator[Fingerprint]:
    yield fingerprint(listed.original)
    if listed.decision.labels:
        yield fingerprint({**listed.original, **listed.decision.labels})


def _entry(identity: Identity, listed: Listed) -> Entry:
    original, *with_ours = _fingerprints(listed)
    return Entry(identity, original, with_ours[0] if with_ours else original, listed)


def _away(forgotten: int, why: str) -> StoreError:
    left = f"only {forgotten} decisions were forgotten" if forgotten else "nothing was forgotten"
    return StoreError(f"{left}, because the store of all proxies is away: {why}")


def _slices(identities: Sequence[Identity]) -> Iterator[Sequence[Identity]]:
    for at in range(0, len(identities), SLICE):
        yield identities[at : at + SLICE]
