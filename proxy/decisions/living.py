"""The hot copy: the decisions on alerts that live, and how long each of them lives."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from cachetools import LRUCache

from proxy.alert import Alert, Identity, LabelSet
from proxy.decisions.decision import Decision
from proxy.decisions.overflow import Overflow
from proxy.decisions.store import Kept

AFTER_LAST_SIGN: Final = timedelta(hours=1)
"""A decision outlives the later of its alert's last sighting and last endsAt by this."""
AT_MOST: Final = timedelta(days=7)
"""However far away an endsAt is."""
REFIRE: Final = timedelta(minutes=15).total_seconds()
"""Prometheus repeats a resolve for 15 minutes (rules/alerting.go, resolvedRetention). Whoever fires anew later than
that is a new alert to everybody, so it is decided anew."""
LOADED: Final = timedelta(minutes=10).total_seconds()
"""The shortest time that a loaded decision lives: its alert may come with the next resend, whatever the clocks say."""
STALE: Final = timedelta(minutes=2).total_seconds()
"""What the store knows of a decision's end may lag behind by this; it is told that much more."""
HANDING_OVER: Final = timedelta(minutes=10).total_seconds()
"""How long an alert is waited for whose former labels are to be ended: Alertmanager ends them itself by then."""
CAPACITY: Final = 200_000
SHARED_TEXTS: Final = 20_000


@dataclass(slots=True)
class _Entry:
    decision: Decision
    life: int
    original: str
    until: float
    """On the monotonic clock, in seconds: a jump of the wall clock ends no decision."""
    begun: float | None = None
    """The latest startsAt that was seen, in seconds since 1970, as all times of the sender's. Two Prometheus that send
    one alert each have their own."""
    resolved_at: float | None = None
    """The endsAt of the resolve that was seen last; None while it fires."""
    fires_until: float | None = None
    """The latest endsAt that any sender gave while it fired: of two Prometheus, one may resolve before the other."""
    kept_until: float = 0.0
    """`until` as the store knows it."""
    replaces: int = 0
    """The life that ended before this one, while the store may still hold it."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A living decision, for people."""

    decision: Decision
    original: LabelSet
    left: float
    """Seconds."""
    resolved_at: datetime | None
    former: Sequence[LabelSet]
    """Labels that Alertmanager is still to be told the end of."""


class Living:
    """Decisions by identity. In memory, synchronous: the alert's way never waits for it.

    What lives is never evicted. Beyond `capacity` new alerts go bare, and only a hash of them is remembered.
    `shared`: other proxies go by the same store.
    """

    def __init__(
        self,
        *,
        capacity: int = CAPACITY,
        shared: bool = False,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._capacity = capacity
        self._is_shared = shared
        self._monotonic = monotonic
        self._now = now
        self._entries: dict[Identity, _Entry] = {}
        self._overflow = Overflow(10 * capacity, AFTER_LAST_SIGN.total_seconds(), monotonic, now)
        self._labelled = 0
        self._texts: LRUCache[tuple[tuple[str, str], ...], LabelSet] = LRUCache(SHARED_TEXTS)
        self._provisional: set[Identity] = set()
        self._loaded: set[Identity] = set()
        self._ended: dict[Identity, int] = {}
        """The lives that ended with a new one, until that is decided about."""
        self._former: dict[Identity, tuple[float, tuple[LabelSet, ...]]] = {}
        self._unkept: dict[Identity, None] = {}
        self.on_unkept: Callable[[], None] = lambda: None
        """Called when there is something new for the store."""

    def __len__(self) -> int:
        return len(self._entries) + len(self._overflow)

    @property
    def labelled(self) -> int:
        """How many of them carry labels: while there is one, no POST passes unread."""
        return self._labelled

    @property
    def full(self) -> bool:
        """Whether new alerts have to go bare."""
        return len(self._entries) >= self._capacity

    @property
    def bare_before(self) -> datetime | None:
        """Alerts that began before may have been sent bare without being remembered; None: all are."""
        return self._overflow.lost_at

    @property
    def unkept(self) -> int:
        """How many of them the store is still to be told."""
        return len(self._unkept)

    @property
    def handing_over(self) -> int:
        """How many alerts have former labels that Alertmanager is still to be told the end of."""
        return len(self._former)

    def seen(self, alert: Alert) -> Decision | None:
        """Return the decision that holds for `alert`, which has just arrived; None when it is new."""
        entry = self._entries.get(alert.identity)
        if entry is None:
            return Decision(alert.identity) if self._overflow.seen(alert.identity, self._lasts(alert)) else None
        if entry.until < self._monotonic():
            self._drop(alert.identity)
            return None
        if self._fires_anew(alert, entry):
            self._ended[alert.identity] = entry.replaces or entry.life  # the one that the store still holds
            self._drop(alert.identity)
            return None
        self._sight(entry, alert)
        return entry.decision

    def decision(self, identity: Identity) -> Decision | None:
        """Return the decision on `identity` as it is now, without counting it as a sign of life."""
        entry = self._entries.get(identity)
        return entry.decision if entry is not None else None

    def resolve_is_news(self, alert: Alert) -> bool:
        """Whether `alert`, which has just arrived, ends something that was not known to be over.

        Prometheus repeats a resolve for 15 minutes, in the same batches as new alerts.
        """
        entry = self._entries.get(alert.identity)
        return alert.resolved(self._now()) and (entry is None or entry.resolved_at is None)

    def candidate(self, decision: Decision, alert: Alert) -> Kept:
        """Return `decision`, not yet made, as the store is to keep it."""
        entry = _Entry(decision, secrets.randbits(62) + 1, json.dumps(dict(alert.labels), separators=(",", ":")), 0.0)
        self._sight(entry, alert)
        entry.replaces = self._ended.get(decision.identity, 0)
        return self._kept(entry)

    def holds(self, kept: Kept, alert: Alert) -> bool:
        """Return whether what the store holds is for the life that `alert` has now, and not for one that ended."""
        if self._ended.get(alert.identity) == kept.life:
            return False
        if self._fires_anew(alert, kept):
            self._ended[alert.identity] = kept.life
            return False
        return True

    def add(self, held: Kept, alert: Alert, *, provisional: bool = False, kept: bool = False) -> Decision:
        """Take up a decision unless there is one already; return the one that holds. The first one wins.

        `provisional`: made before it was known what Alertmanager holds. `kept`: the store has it already.
        """
        identity = held.decision.identity
        if (entry := self._entries.get(identity)) is not None:
            self._sight(entry, alert)
            return entry.decision
        if self._overflow.seen(identity, self._lasts(alert)):
            return Decision(identity)
        if self.full and not held.decision.labels and not held.decision.annotations:
            self._overflow.add(identity, held.left - STALE)
            return held.decision
        entry = self._enter(held)
        self._sight(entry, alert)
        self._ended.pop(identity, None)
        self.handed_over(identity, [held.decision.labels])
        if provisional:
            self._provisional.add(identity)
        if kept:
            entry.kept_until = self._monotonic() + held.left - STALE
        else:
            self._note(identity)
        return entry.decision

    def load(self, held: Kept) -> None:
        """Take up a decision that the store held at the start. Alertmanager may still know better."""
        identity = held.decision.identity
        if identity in self._provisional:
            self._replace_provisional(identity, held.decision)
        if identity not in self._entries:
            self._enter(replace(held, left=max(held.left, LOADED)))
        entry = self._entries[identity]
        if entry.decision.labels == held.decision.labels:
            entry.life, entry.kept_until = held.life, self._monotonic() + held.left - STALE
            self._loaded.add(identity)

    def before_start(self, identity: Identity) -> LabelSet | None:
        """Return the labels which the store held at the start; None when it held nothing."""
        return self._entries[identity].decision.labels if identity in self._loaded else None

    def provisional(self, identity: Identity) -> Decision | None:
        """Return the decision on `identity` if it was made before it was known what Alertmanager holds."""
        return self._entries[identity].decision if identity in self._provisional else None

    def restore(self, decision: Decision, alert: Alert) -> Kept:
        """Take up what Alertmanager's alerts show; it wins over what was decided or loaded without knowing of it."""
        entry = self._entries.get(decision.identity)
        if entry is not None and decision.identity in self._provisional:
            self._replace_provisional(decision.identity, decision)
        elif entry is not None and decision.identity in self._loaded:
            self._loaded.discard(decision.identity)
            if entry.decision.labels != decision.labels:
                self._correct(entry, decision)
        holds = self.add(self.candidate(decision, alert), alert)
        entry = self._entries.get(decision.identity)
        return self._kept(entry) if entry is not None else self.candidate(holds, alert)

    def settle(self) -> None:
        """What Alertmanager holds is known: from now on everything stands."""
        self._provisional.clear()
        self._loaded.clear()

    def improve(self, identity: Identity, better: Callable[[Decision], Decision]) -> bool:
        """Replace the annotations of a decision by those of `better(decision)`; return whether they differ."""
        entry = self._entries.get(identity)
        if entry is None:
            return False
        improved = better(entry.decision)
        if improved == entry.decision:
            return False
        if improved.labels != entry.decision.labels:
            raise ValueError("labels of a living alert never change")
        entry.decision = self._shared(improved)
        self._note(identity)
        return True

    def hand_over(self, told: Kept, winner: Kept) -> None:
        """Another proxy's claim came before ours, which the store was `told`: go on with its labels.

        The end of ours is told to Alertmanager. A claim for a life that has ended meanwhile changes nothing.
        """
        identity = winner.decision.identity
        entry = self._entries.get(identity)
        if entry is None or entry.life != told.life:
            return
        if entry.decision.labels != winner.decision.labels:
            self._ending(identity, entry.decision.labels)
            self._relabel(entry, winner.decision)
        entry.life, entry.replaces = winner.life, 0
        entry.kept_until = entry.until

    def former(self, identity: Identity) -> tuple[LabelSet, ...]:
        """Return the labels under which Alertmanager may still hold the alert, beside those that it has now."""
        pending = self._former.get(identity)
        if pending is None:
            return ()
        entry = self._entries.get(identity)
        return tuple(labels for labels in pending[1] if entry is None or labels != entry.decision.labels)

    def handed_over(self, identity: Identity, ended: Sequence[LabelSet]) -> None:
        """Alertmanager has been told the end of an alert under the labels `ended`."""
        if pending := self._former.pop(identity, None):
            until, former = pending
            if left := tuple(labels for labels in former if labels not in ended):
                self._former[identity] = until, left

    def forget(self, identity: Identity) -> bool:
        """Drop a decision because an operator says so; its labels are ended with the alert's next POST."""
        entry = self._entries.get(identity)
        if entry is None:
            return False
        self._ending(identity, entry.decision.labels)
        self._drop(identity)
        return True

    def listed(self, identity: Identity) -> Listed | None:
        """Return what there is to tell people about one decision."""
        entry = self._entries.get(identity)
        if entry is None:
            return None
        resolved = datetime.fromtimestamp(entry.resolved_at, UTC) if entry.resolved_at is not None else None
        left = entry.until - self._monotonic()
        return Listed(entry.decision, json.loads(entry.original or "{}"), left, resolved, self.former(identity))

    def identities(self) -> list[Identity]:
        """Return who lives, but for those of whom only a hash is known."""
        return list(self._entries)

    # For the store.

    def take_unkept(self, at_most: int) -> list[Kept]:
        """Return decisions that the store is to be told; they count as told unless they are given to `not_kept`."""
        taken: list[Kept] = []
        while self._unkept and len(taken) < at_most:
            identity = next(iter(self._unkept))  # who waits longest
            del self._unkept[identity]
            if entry := self._entries.get(identity):
                taken.append(self._kept(entry))
        return taken

    def kept(self, told: Kept, holds: Kept) -> None:
        """The store was `told` of a decision, and has it: in the same life, or in another that has the same labels."""
        entry = self._entries.get(told.decision.identity)
        if entry is None or entry.life != told.life:
            return
        entry.replaces = 0
        entry.kept_until = self._monotonic() + told.left - STALE
        if holds.life != told.life:
            # That an earlier life has ended says nothing of the one that others know.
            entry.life = holds.life
            entry.resolved_at = entry.resolved_at and holds.resolved_at
            entry.fires_until = max(entry.fires_until or 0.0, holds.fires_until or 0.0) or None
            self._note(told.decision.identity)

    def not_kept(self, taken: Sequence[Kept]) -> None:
        """The store could not be told."""
        for kept in taken:
            self._note(kept.decision.identity)

    def nothing_is_kept(self) -> None:
        """The store has lost everything."""
        self._unkept = dict.fromkeys(self._entries)
        self.on_unkept()

    def sweep(self, slice_of: int) -> Iterator[None]:
        """Drop what is over, and note what the store knows too short an end of; yield after every `slice_of`."""
        now = self._monotonic()
        for n, identity in enumerate(list(self._entries), 1):
            if entry := self._entries.get(identity):
                if entry.until < now:
                    self._drop(identity)
                elif entry.until > entry.kept_until + STALE:
                    self._note(identity)
            if n % slice_of == 0:
                yield
        for identity in [identity for identity, (until, _) in self._former.items() if until < now]:
            del self._former[identity]
        if len(self._ended) > self._capacity:
            self._ended.clear()  # new lives that went bare for want of room

    def _enter(self, held: Kept) -> _Entry:
        entry = _Entry(
            self._shared(held.decision),
            held.life,
            held.original,
            self._monotonic() + held.left,
            resolved_at=held.resolved_at,
            fires_until=held.fires_until,
            replaces=held.replaces,
        )
        self._entries[held.decision.identity] = entry
        self._labelled += bool(held.decision.labels)
        return entry

    def _replace_provisional(self, identity: Identity, decision: Decision) -> None:
        """Go on with what people were told before the start. What was sent meanwhile is ended."""
        entry = self._entries[identity]
        self._provisional.discard(identity)
        if entry.decision.labels != decision.labels:
            self._ending(identity, entry.decision.labels)
            self._correct(entry, decision)

    def _drop(self, identity: Identity) -> None:
        if entry := self._entries.pop(identity, None):
            self._labelled -= bool(entry.decision.labels)
            self._provisional.discard(identity)
            self._loaded.discard(identity)
            self._unkept.pop(identity, None)

    def _relabel(self, entry: _Entry, decision: Decision) -> None:
        self._labelled += bool(decision.labels) - bool(entry.decision.labels)
        entry.decision = self._shared(decision)

    def _correct(self, entry: _Entry, decision: Decision) -> None:
        """Go by `decision`, in the store as well; but what others may go by there stands until it is claimed."""
        self._relabel(entry, decision)
        entry.replaces = 0 if self._is_shared else entry.life
        entry.life = secrets.randbits(62) + 1
        self._note(decision.identity)

    def _ending(self, identity: Identity, labels: LabelSet) -> None:
        _, before = self._former.get(identity, (0.0, ()))
        self._former[identity] = self._monotonic() + HANDING_OVER, (*(b for b in before if b != labels), labels)

    def _note(self, identity: Identity) -> None:
        self._unkept[identity] = None
        self.on_unkept()

    def _kept(self, entry: _Entry) -> Kept:
        return Kept(
            entry.decision,
            entry.life,
            max(entry.until - self._monotonic(), 0.0) + STALE,
            entry.original,
            entry.resolved_at,
            entry.fires_until,
            entry.replaces,
            entry.begun,
        )

    def _shared(self, decision: Decision) -> Decision:
        """Return `decision` with its texts in one copy for all that have the same: there are few, and many alerts."""
        return replace(
            decision,
            labels=self._texts.setdefault(tuple(decision.labels.items()), decision.labels),
            annotations=self._texts.setdefault(tuple(decision.annotations.items()), decision.annotations),
        )

    def _fires_anew(self, alert: Alert, before: _Entry | Kept) -> bool:
        if before.resolved_at is None or alert.starts_at is None or alert.resolved(self._now()):
            return False
        begun = alert.starts_at.timestamp()
        return begun > before.resolved_at + REFIRE and (before.fires_until is None or begun > before.fires_until)

    def _lasts(self, alert: Alert) -> float:
        """Return for how many seconds a decision on `alert`, which has just arrived, holds."""
        ends_in = alert.ends_at - self._now() if alert.ends_at else timedelta()
        return min(max(ends_in, timedelta()) + AFTER_LAST_SIGN, AT_MOST).total_seconds()

    def _sight(self, entry: _Entry, alert: Alert) -> None:
        now = self._now()
        entry.until = self._monotonic() + self._lasts(alert)
        was_resolved_at, had_begun = entry.resolved_at, entry.begun
        if alert.starts_at:
            entry.begun = max(alert.starts_at.timestamp(), had_begun or 0.0)
        begins_anew = had_begun is not None and had_begun != entry.begun
        ends_at = alert.ends_at.timestamp() if alert.ends_at else None
        if alert.resolved(now):
            entry.resolved_at = ends_at
        else:
            entry.resolved_at = None
            if ends_at is not None and (entry.fires_until is None or ends_at > entry.fires_until):
                entry.fires_until = ends_at
        if entry.kept_until and (begins_anew or was_resolved_at != entry.resolved_at):
            # Another life may have begun. Should another proxy have decided so, the store tells when it is told.
            self._note(entry.decision.identity)
