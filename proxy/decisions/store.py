"""The port to where decisions are kept beyond this process."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from proxy.alert import Identity
from proxy.decisions.decision import Decision


class DecisionStore(Protocol):
    """Memory of decisions that may be shared by several proxies. Raises StoreError when it cannot answer.

    A whole batch at a time: Prometheus posts up to 256 alerts, and each question is a round trip.
    """

    async def get(self, identities: Collection[Identity]) -> Mapping[Identity, Decision]:
        """Return the decisions there are; those without one are left out."""
        ...

    async def claim(self, new: Sequence[Decision]) -> Mapping[Identity, Decision]:
        """Keep each decision unless there is one already; return, for each, the one that holds."""
        ...

    async def forget(self, identities: Collection[Identity]) -> None:
        """Drop decisions whose alerts have ended."""
        ...

    async def labelling_since(self) -> datetime | None:
        """Return since when alerts are labelled without a break; None while they are not."""
        ...

    async def set_labelling_since(self, since: datetime | None) -> None:
        """Keep that moment, or that labelling has stopped."""
        ...
