"""Text that lands after its alert has left: posted once more, while the first page is still being held back.

Alertmanager sends the first notification about a group after `group_wait`. Text that lands before that is worth a POST
of our own: the alert as it was sent last, same labels and times, with the annotations that it has now. Text is never
worth a wrong page, so this happens only while nothing speaks against it, and else the text goes with the next resend:

- A POST that holds the alert and one of ours are never on their way together, so the later one is the newer one.
- Nothing is posted from the moment on at which a resolve comes in. A firing copy after it would bring the alert back.
- To an Alertmanager that is slow or silent nothing is posted: what it has not answered, it may still apply later. What
  it then brings back ends with the next resend of the resolve, because nothing newer than the sender's times is sent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Final, Self

import structlog
from aiohttp import web
from multidict import CIMultiDict

from proxy.alert import Alert, Identity, LabelSet
from proxy.decisions.decision import Decision
from proxy.errors import UpstreamError
from proxy.gateway import alerts
from proxy.gateway.forwarder import target, to_send

if TYPE_CHECKING:
    from proxy.gateway.pipeline import Prepared

log = structlog.get_logger(__name__)

WINDOW: Final = 15.0
"""Seconds after the first forward, and after startsAt, in which text is posted. Half of Alertmanager's default
`group_wait`: an alert older than that would make it send the group at once."""
ENDS_AFTER: Final = timedelta(seconds=30)
"""How long the alert must still fire by its own endsAt."""
FAST: Final = 1.0
"""Seconds within which Alertmanager must have answered last time."""
DEADLINE: Final = 1.0
"""Seconds for a POST of ours, and so what a sender's POST may have to wait for it."""
GIVING_UP: Final = 0.05
"""Seconds of them in which it is given up, before a sender's POST goes on."""
TOGETHER: Final = 0.05
"""Seconds in which texts that land go with the first one."""
PER_POST: Final = 64
CANDIDATES: Final = 10_000
TIDY_EVERY: Final = 5.0
ELEMENT_LIMIT: Final = 16 << 10
"""Characters of an alert that is kept to be posted again."""

Answered = Callable[[int, float], None]
"""Takes the status of Alertmanager's answer, and how many seconds it took."""
Post = Callable[[str, CIMultiDict[str], bytes, float], Awaitable[int]]
"""Posts a body, with headers, to a target by a deadline on the loop's clock. Returns the status, or UpstreamError."""

_Way = tuple[str, tuple[tuple[str, str], ...]]
"""Target and headers: what is alike in them may go in one POST."""


@dataclass(frozen=True, slots=True)
class Sent:
    """An alert that left, and whose text may follow."""

    alert: Alert
    """As it was read, without what we added."""
    element: str
    """The JSON object as the sender wrote it."""


@dataclass(slots=True)
class _Candidate:
    sent: Sent
    way: _Way
    labels: LabelSet
    """Ours, with which it left."""
    starts_at: datetime
    """The earliest that was sent: Alertmanager keeps that one."""
    first: float
    """When it was first forwarded, on the monotonic clock."""
    until: float
    """When it is forgotten. Any sooner, and a resend would make it an alert that was never forwarded before.

    Another sender that begins to fire later than that, by its own startsAt, begins a window of its own."""
    done: bool = False
    """It was posted, or must not be any more."""


@dataclass(eq=False, slots=True)
class _Passage:
    """A sender's POST on its way to Alertmanager."""

    identities: Collection[Identity]
    begun: float
    accepted: bool = False


class Reposter:
    """Posts late text, each alert at most once while it lives.

    `decision_of` gives what is to be said about an alert now, None for nothing. `on_outcome` is called once for each
    alert: `sent`, `refused` (another status than 2xx), `failed` (no answer in time) or `unsafe` (not tried).
    """

    def __init__(
        self,
        *,
        decision_of: Callable[[Identity], Decision | None],
        post: Post,
        on_outcome: Callable[[str], None],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
        candidates: int = CANDIDATES,
    ) -> None:
        self._decision_of = decision_of
        self._post = post
        self._on_outcome = on_outcome
        self._now = now
        self._monotonic = monotonic
        self._limit = candidates
        self._candidates: dict[Identity, _Candidate] = {}
        self._due: dict[Identity, _Candidate] = {}
        """Those whose text has landed."""
        self._landed: dict[Identity, float] = {}
        """When text landed, also of alerts whose first POST is still on its way."""
        self._resolved: dict[Identity, datetime] = {}
        """When a resolve came in. Whoever began before that is over, whatever a POST still on its way says."""
        self._all_over = datetime.min.replace(tzinfo=UTC)
        """The same for all alerts: when a POST was last not read."""
        self._passages: set[_Passage] = set()
        self._under_way: dict[Identity, asyncio.Future[None]] = {}
        self._tasks: dict[_Way, asyncio.Task[None]] = {}
        self._fast = False
        self._closed = False
        self._flush_timer: asyncio.TimerHandle | None = None
        self._tidy_timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __len__(self) -> int:
        """How many alerts are remembered."""
        return len(self._candidates)

    async def close(self) -> None:
        """Post nothing more. What is under way has its second, and is given up after it."""
        self._closed = True
        for timer in (self._flush_timer, self._tidy_timer):
            if timer is not None:
                timer.cancel()
        self._flush_timer = self._tidy_timer = None
        self._candidates.clear()
        self._due.clear()
        if tasks := list(self._tasks.values()):
            _, late = await asyncio.wait(tasks, timeout=DEADLINE)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    @asynccontextmanager
    async def passing(self, prepared: Prepared, request: web.BaseRequest) -> AsyncIterator[Answered]:
        """Surround the forwarding of a POST. Waits for ours that holds one of its alerts, at most `DEADLINE`.

        What it yields is to be told Alertmanager's answer to the whole of `prepared.body`, if there is one.
        """
        if not prepared.identities:
            self.forget()
        self.resolved(prepared.resolved)
        passage = _Passage(prepared.identities, self._monotonic())
        self._passages.add(passage)  # before the wait: no other of ours begins meanwhile
        try:
            if ours := {future for i, future in self._under_way.items() if i in prepared.identities}:
                await asyncio.wait(ours, timeout=DEADLINE)
            yield partial(self._answered, passage, prepared, request)
        finally:
            self._passages.discard(passage)
            if not passage.accepted:
                self._lost(prepared.identities)
            if self._due:
                self._schedule()

    def text_landed(self, identity: Identity) -> None:
        """Say that the text about an alert has become better."""
        if len(self._landed) < self._limit:
            self._landed[identity] = self._monotonic()
            self._tidy_later()
        self._want(identity)

    def resolved(self, identities: Collection[Identity]) -> None:
        """Say that resolves of these alerts have come in: from now on nothing is posted about them."""
        if max(len(identities), len(self._resolved)) > self._limit:
            self.forget()
            return
        now = self._now()
        for identity in identities:
            for known in (self._candidates, self._due):
                known.pop(identity, None)
            self._resolved[identity] = now
        if identities:
            self._tidy_later()

    def forget(self) -> None:
        """Say that a POST goes unread: whichever alert it ends must not come back."""
        self._all_over = self._now()
        for known in (self._candidates, self._due, self._resolved):
            known.clear()

    def _answered(
        self, passage: _Passage, prepared: Prepared, request: web.BaseRequest, status: int, seconds: float
    ) -> None:
        if not 200 <= status < 300:
            return
        passage.accepted = True
        self._fast = seconds < FAST
        awaiting = {sent.alert.identity for sent in prepared.awaiting}
        for identity in self._candidates.keys() & prepared.identities:
            self._due.pop(identity, None)  # the text went with it, or else the alert is among those that follow
            if identity not in awaiting and identity not in self._landed:
                self._candidates[identity].done = True  # by then no text was wanted
        if awaiting:
            way = _way(request)
            for sent in prepared.awaiting:
                self._take(sent, way, passage.begun)
            self._tidy_later()

    def _lost(self, identities: Collection[Identity]) -> None:
        """Note that Alertmanager has refused a POST, or not answered it: what it knows of these alerts is uncertain."""
        self._fast = False
        for identity in self._candidates.keys() & identities:
            self._candidates[identity].done = True
            if self._due.pop(identity, None) is not None:
                self._on_outcome("unsafe")

    def _take(self, sent: Sent, way: _Way, begun: float) -> None:
        identity, starts_at = sent.alert.identity, sent.alert.starts_at
        candidate = self._candidates.get(identity)
        if starts_at is None or sent.alert.ends_at is None or self._is_over(identity, starts_at):
            # Whatever else was sent about it is not the latest any more.
            if candidate is not None:
                candidate.done = True
            return
        if candidate is None:
            self._candidates |= self._new(sent, starts_at, way, begun)
        else:
            candidate.sent, candidate.way = sent, way
            candidate.starts_at = min(candidate.starts_at, starts_at)
        # Whatever landed before that POST began was text of an earlier life: the alert was awaiting its own.
        if self._landed.get(identity, -inf) >= begun:
            self._want(identity)

    def _new(self, sent: Sent, starts_at: datetime, way: _Way, begun: float) -> dict[Identity, _Candidate]:
        """Return the candidate that `sent` makes, or none."""
        identity, ahead = sent.alert.identity, (starts_at - self._now()).total_seconds()
        decision = self._decision_of(identity)
        if (
            decision is None
            or abs(ahead) >= WINDOW
            or len(sent.element) > ELEMENT_LIMIT
            or len(self._candidates) >= self._limit
            or self._closed
        ):
            return {}
        until = begun + WINDOW + max(0.0, ahead)
        return {identity: _Candidate(sent, way, decision.labels, starts_at, begun, until)}

    def _is_over(self, identity: Identity, starts_at: datetime) -> bool:
        """Whether that life of the alert has ended, although a POST that was on its way still says that it fires."""
        return starts_at <= self._resolved.get(identity, self._all_over)

    def _want(self, identity: Identity) -> None:
        candidate = self._candidates.get(identity)
        if candidate is not None and not candidate.done:
            self._due[identity] = candidate
            self._schedule()

    def _schedule(self) -> None:
        if self._flush_timer is None:
            self._flush_timer = asyncio.get_running_loop().call_later(TOGETHER, self._flush)

    def _flush(self) -> None:
        self._flush_timer = None
        for way in {candidate.way for candidate in self._due.values()}:
            if way not in self._tasks:  # else the one that runs takes them along
                self._tasks[way] = asyncio.create_task(self._run(way), name="re-post")

    async def _run(self, way: _Way) -> None:
        """Post what is due on one way, one POST after another."""
        try:
            # What is due is picked in the same step in which the POST begins: nothing can come in between.
            while picked := self._pick(way):
                await self._deliver(way, picked)
        except Exception:
            log.exception("a bug: text that landed late goes with the next resend")
        finally:
            del self._tasks[way]

    async def _deliver(self, way: _Way, picked: dict[Identity, tuple[str, Decision]]) -> None:
        path, headers = way
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._under_way |= dict.fromkeys(picked, over)
        outcome = "failed"
        try:
            # A moment before those give up that wait for it.
            deadline = asyncio.get_running_loop().time() + DEADLINE - GIVING_UP
            status = await self._post(path, CIMultiDict(headers), _body(picked.values()), deadline)
            outcome = "sent" if 200 <= status < 300 else "refused"
        except UpstreamError as exc:
            log.info("text that landed late goes with the next resend", error=str(exc))
        finally:
            self._fast = self._fast and outcome == "sent"
            over.set_result(None)
            for identity in picked:
                self._under_way.pop(identity, None)
                self._on_outcome(outcome)

    def _pick(self, way: _Way) -> dict[Identity, tuple[str, Decision]]:
        """Take what is due on one way and may be posted now; what may not goes with the next resend."""
        picked: dict[Identity, tuple[str, Decision]] = {}
        for identity, candidate in list(self._due.items()):
            if candidate.way != way or self._passes(identity):
                continue
            del self._due[identity]
            decision = self._decision_of(identity)
            if decision is None or not decision.annotations or decision.labels != candidate.labels:
                continue
            if not self._safe(candidate):
                self._on_outcome("unsafe")
                continue
            candidate.done = True
            picked[identity] = candidate.sent.element, decision
            if len(picked) == PER_POST:
                break
        return picked

    def _passes(self, identity: Identity) -> bool:
        """Whether a POST that holds the alert is on its way to Alertmanager."""
        return any(identity in passage.identities for passage in self._passages)

    def _safe(self, candidate: _Candidate) -> bool:
        now, monotonic, ends_at = self._now(), self._monotonic(), candidate.sent.alert.ends_at
        return (
            self._fast
            and all(monotonic < passage.begun + FAST for passage in self._passages)
            and monotonic < candidate.first + WINDOW
            and now < candidate.starts_at + timedelta(seconds=WINDOW)
            and ends_at is not None
            and ends_at > now + ENDS_AFTER
        )

    def _tidy_later(self) -> None:
        if self._tidy_timer is None and not self._closed:
            self._tidy_timer = asyncio.get_running_loop().call_later(TIDY_EVERY, self._tidy)

    def _tidy(self) -> None:
        """Forget what is too old to be posted."""
        self._tidy_timer = None
        monotonic, before = self._monotonic(), self._now() - timedelta(seconds=WINDOW)
        self._candidates = {i: found for i, found in self._candidates.items() if found.until > monotonic}
        self._landed = {i: landed for i, landed in self._landed.items() if landed + WINDOW > monotonic}
        self._resolved = {i: came_in for i, came_in in self._resolved.items() if came_in > before}
        if self._candidates or self._landed or self._resolved:
            self._tidy_later()


def _way(request: web.BaseRequest) -> _Way:
    headers = to_send(request)
    headers.popall("Content-Length", None)
    return target(request), tuple(headers.items())


def _body(picked: Collection[tuple[str, Decision]]) -> bytes:
    """Return the alerts with what is said about them now, as their senders' own POSTs would bring it."""
    batch = alerts.decode(("[" + ",".join(element for element, _ in picked) + "]").encode(errors="surrogateescape"))
    insertions: list[alerts.Insertion] = []
    for item, (_, decision) in zip(batch.items, picked, strict=True):
        more = item.insertions(decision.labels, decision.annotations)
        insertions += [*more.labels, *more.annotations]
    return alerts.encode(batch, insertions)
