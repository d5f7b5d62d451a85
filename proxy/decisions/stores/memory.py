"""`memory:`: decisions end with the process. What Alertmanager holds is recovered at the next start."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from proxy.alert import Identity
from proxy.decisions.decision import Decision


class MemoryStore:
    """A DecisionStore for one proxy alone."""

    def __init__(self) -> None:
        self._decisions: dict[Identity, Decision] = {}
        self._labelling_since: datetime | None = None

    async def get(self, identities: Collection[Identity]) -> Mapping[Identity, Decision]:
        return {i: self._decisions[i] for i in identities if i in self._decisions}

    async def claim(self, new: Sequence[Decision]) -> Mapping[Identity, Decision]:
        return {d.identity: self._decisions.setdefault(d.identity, d) for d in new}

    async def forget(self, identities: Collection[Identity]) -> None:
        for i in identities:
            self._decisions.pop(i, None)

    async def labelling_since(self) -> datetime | None:
        return self._labelling_since

    async def set_labelling_since(self, since: datetime | None) -> None:
        self._labelling_since = since
