"""Who gets what: the mode, and the alerts that are left alone in every mode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from proxy.alert import Alert
from proxy.decisions.decision import Names, Treatment
from proxy.decisions.store import DecisionStore
from proxy.matchers import Matcher, matches_all
from proxy.policy import Mode


class Rollout:
    """Decides the treatment of alerts that nothing is known about. What is decided already never asks here again."""

    def __init__(
        self,
        mode: Mode,
        *,
        names: Names,
        store: DecisionStore,
        skip: Sequence[Sequence[Matcher]] = (),
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._mode = mode
        self._source = "config"
        self._names = names
        self._store = store
        self._skip = skip
        self._now = now
        self._labelling_since: datetime | None = None

    @property
    def mode(self) -> Mode:
        return self._mode

    @property
    def source(self) -> str:
        """Where the mode comes from: `config`, or `memory` once it was switched."""
        return self._source

    @property
    def labelling_since(self) -> datetime | None:
        """Alerts that began before were sent bare, and stay bare. None while the mode does not label."""
        return self._labelling_since

    async def start(self) -> None:
        """Take up the labelling that the store remembers, or begin. Raises StoreError."""
        since = await self._store.labelling_since() if self._mode is Mode.ENRICHED else None
        await self._set_since(since or self._now())

    async def switch(self, mode: Mode) -> None:
        """Change the mode for alerts not seen yet. Raises StoreError, and then nothing has changed."""
        since = self._labelling_since if self._mode is mode else self._now()
        was, self._mode = self._mode, mode
        try:
            await self._set_since(since or self._now())
        except BaseException:
            self._mode = was
            raise
        self._source = "memory"

    def treatment(self, alert: Alert) -> Treatment:
        """Return what `alert`, firing and never seen before, gets."""
        if self._mode is Mode.TRANSPARENT:
            return Treatment.PLAIN
        if any(name in alert.labels for name in self._names.labels):
            # Labels that the sender chose are the sender's: nothing is overwritten, nothing is trusted as ours.
            return Treatment.PLAIN
        if any(matches_all(matchers, alert.labels) for matchers in self._skip):
            return Treatment.PLAIN
        if self._mode is Mode.TRANSPARENT_WITH_RECOMMENDATIONS:
            return Treatment.ANNOTATE
        if self._labelling_since is None or (alert.starts_at and alert.starts_at < self._labelling_since):
            # Alertmanager may know it without labels: with labels it would be a second alert, and page again.
            return Treatment.PLAIN
        return Treatment.LABEL

    async def _set_since(self, since: datetime) -> None:
        kept = since if self._mode is Mode.ENRICHED else None
        await self._store.set_labelling_since(kept)
        self._labelling_since = kept
