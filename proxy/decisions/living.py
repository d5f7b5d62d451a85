"""The hot copy: the decisions on alerts that live, and how long each of them lives."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from proxy.alert import Alert, Identity
from proxy.decisions.decision import Decision

AFTER_LAST_SIGN: Final = timedelta(hours=1)
"""A decision outlives the later of its alert's last sighting and last endsAt by this."""
AT_MOST: Final = timedelta(days=7)
"""However far away an endsAt is."""
REFIRE: Final = timedelta(minutes=15)
"""Prometheus repeats a resolve for 15 minutes (rules/alerting.go, resolvedRetention). Whoever fires anew later than
that is a new alert to everybody, so it is decided anew."""


@dataclass(slots=True)
class _Entry:
    decision: Decision
    until: float
    """On the monotonic clock, in seconds: a jump of the wall clock ends no decision."""
    provisional: bool = False
    """Made before it was known what Alertmanager holds."""
    resolved_at: datetime | None = None
    """The endsAt of the resolve that was seen last; None while it fires. On the sender's clock."""
    fires_until: datetime | None = None
    """The latest endsAt that any sender gave while it fired: of two Prometheus, one may resolve before the other."""


class Living:
    """Decisions by identity. In memory, synchronous: the alert's way never waits for it."""

    def __init__(
        self,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._monotonic = monotonic
        self._now = now
        self._entries: dict[Identity, _Entry] = {}
        self._labelled = 0
        self._ended: list[Identity] = []

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def labelled(self) -> int:
        """How many of them carry labels: while there is one, no POST passes unread."""
        return self._labelled

    def seen(self, alert: Alert) -> Decision | None:
        """Return the decision that holds for `alert`, which has just arrived; None when it is new."""
        entry = self._entries.get(alert.identity)
        if entry is None:
            return None
        if entry.until < self._monotonic() or self._fires_anew(alert, entry):
            self.forget(alert.identity)
            return None
        self._sight(entry, alert)
        return entry.decision

    def resolve_is_news(self, alert: Alert) -> bool:
        """Whether `alert`, which has just arrived, ends something that was not known to be over.

        Prometheus repeats a resolve for 15 minutes, in the same batches as new alerts.
        """
        entry = self._entries.get(alert.identity)
        return alert.resolved(self._now()) and (entry is None or entry.resolved_at is None)

    def add(self, decision: Decision, alert: Alert, *, provisional: bool = False) -> Decision:
        """Keep `decision` unless there is one already; return the one that holds. The first one wins."""
        entry = self._entries.get(decision.identity)
        if entry is None:
            entry = self._entries[decision.identity] = _Entry(decision, 0.0, provisional)
            self._labelled += bool(decision.labels)
        self._sight(entry, alert)
        return entry.decision

    def provisional(self, identity: Identity) -> Decision | None:
        """Return the decision on `identity` if it may still be replaced by a restored one."""
        entry = self._entries.get(identity)
        return entry.decision if entry is not None and entry.provisional else None

    def restore(self, decision: Decision, alert: Alert) -> Decision:
        """Keep a decision that Alertmanager's alerts show; it replaces one that was made without knowing of it."""
        entry = self._entries.get(decision.identity)
        if entry is not None and entry.provisional:
            self._labelled += bool(decision.labels) - bool(entry.decision.labels)
            entry.decision, entry.provisional = decision, False
        return self.add(decision, alert)

    def improve(self, identity: Identity, better: Callable[[Decision], Decision]) -> None:
        """Replace the annotations of a decision that still lives by those of `better(decision)`."""
        if entry := self._entries.get(identity):
            improved = better(entry.decision)
            if improved.labels != entry.decision.labels:
                raise ValueError("labels of a living alert never change")
            entry.decision = improved

    def forget(self, identity: Identity) -> None:
        """Drop a decision."""
        if entry := self._entries.pop(identity, None):
            self._labelled -= bool(entry.decision.labels)
            self._ended.append(identity)

    def expire(self) -> None:
        """Drop the decisions whose time is over."""
        now = self._monotonic()
        for identity in [identity for identity, entry in self._entries.items() if entry.until < now]:
            self.forget(identity)

    def take_ended(self) -> list[Identity]:
        """Return the identities dropped since the last call, for the store to drop them as well."""
        ended, self._ended = self._ended, []
        return ended

    def _fires_anew(self, alert: Alert, entry: _Entry) -> bool:
        return (
            entry.resolved_at is not None
            and alert.starts_at is not None
            and not alert.resolved(self._now())
            and alert.starts_at > entry.resolved_at + REFIRE
            and (entry.fires_until is None or alert.starts_at > entry.fires_until)
        )

    def _sight(self, entry: _Entry, alert: Alert) -> None:
        now = self._now()
        ends_in = alert.ends_at - now if alert.ends_at else timedelta()
        left = min(max(ends_in, timedelta()) + AFTER_LAST_SIGN, AT_MOST)
        entry.until = self._monotonic() + left.total_seconds()
        if alert.resolved(now):
            entry.resolved_at = alert.ends_at
        else:
            entry.resolved_at = None
            if alert.ends_at and (entry.fires_until is None or alert.ends_at > entry.fires_until):
                entry.fires_until = alert.ends_at
