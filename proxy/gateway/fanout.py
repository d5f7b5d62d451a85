"""The way to several Alertmanagers: each gets every alert, and none waits for another.

    sender ── POST ──┬── lane ── forwarder ── Alertmanager     one POST at a time, in the order in which they came
                     └── lane ── forwarder ── Alertmanager

The sender is answered when enough of them have taken its POST, and the others have answered too or had a moment for it.
What is then still on its way goes on to its deadline. An Alertmanager that was silent twice in a row is suspended: one
POST at a time is tried on it, for which nobody waits, until it answers one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import aiohttp
import structlog
from aiohttp import web

from proxy.decisions.watch import Alertmanager
from proxy.errors import UpstreamError, UpstreamTimeout
from proxy.gateway.forwarder import Answer, Forwarder

log = structlog.get_logger(__name__)

LAG: Final = 0.5
"""Seconds that the others have when enough have taken a POST. A sender that waits for the slowest is throttled by it;
one that never waits fills the line before it."""
TIMEOUTS: Final = 2
"""So many in a row suspend an Alertmanager."""
SILENT_FOR: Final = 10.0
"""Seconds after a timeout in which other requests go to another one first."""
WAITING: Final = 64 << 20
"""Bytes of POSTs that may wait for one Alertmanager, or as many as a POST may have if that is more."""


class Observer(Protocol):
    """Hears what becomes of POSTs; `alertmanager` is its URL."""

    def dropped(self, alertmanager: str) -> None:
        """One was not sent: it waited too long, or Alertmanager is suspended."""
        ...

    def suspended(self, alertmanager: str, suspended: bool) -> None:
        """Alertmanager is left alone from now on, or not any more."""
        ...


class Lane:
    """One of several Alertmanagers. POSTs of alerts go to it one after another, so that a resolve never overtakes."""

    def __init__(
        self,
        forwarder: Forwarder,
        client: Alertmanager,
        name: str,
        observer: Observer,
        *,
        waiting_limit: int,
    ) -> None:
        """`waiting_limit` is how many bytes of POSTs may wait for this one; the only one that waits may be longer."""
        self._forwarder = forwarder
        self.client = client
        """The same Alertmanager, asked on our own account."""
        self.name = name
        """Its URL."""
        self._observer = observer
        self._waiting_limit = waiting_limit
        self._turn = asyncio.Lock()  # whoever came first has it first
        self._waiting = 0
        self._timeouts = 0
        self._silent_since: float | None = None
        self._probe: asyncio.Task[Answer] | None = None
        """The POST that was last tried on it while it was suspended."""
        self._last = ""
        self._tasks: set[asyncio.Task[Answer]] = set()
        self.suspended = False
        observer.suspended(name, False)

    @property
    def healthy(self) -> bool:
        """Whether it may be asked for what is not a POST of alerts before others are."""
        since = self._silent_since
        return not self.suspended and (since is None or asyncio.get_running_loop().time() > since + SILENT_FOR)

    @property
    def state(self) -> str:
        """How it does: `unknown`, `answers`, `fails` or `suspended`."""
        return "suspended" if self.suspended else self._last or "unknown"

    def begin(
        self, request: web.BaseRequest, body: bytes, deadline: float, without_annotations: Callable[[], bytes] | None
    ) -> asyncio.Task[Answer] | None:
        """Begin to deliver, and return what ends with the answer; None when there is nothing to wait for."""
        probes = self.suspended
        if self._probing if probes else self._waiting and self._waiting + len(body) > self._waiting_limit:
            self._observer.dropped(self.name)
            return None
        task = asyncio.create_task(
            self._deliver(request, body, deadline, without_annotations, probes=probes), name=f"post to {self.name}"
        )
        if probes:
            self._probe = task
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return None if probes else task

    @property
    def _probing(self) -> bool:
        """Whether a POST is being tried on it, whichever way it is going to end."""
        return self._probe is not None and not self._probe.done()

    async def stream(self, request: web.BaseRequest, prefix: bytes) -> web.StreamResponse:
        """Pass a request on, as Forwarder does."""
        try:
            response = await self._forwarder.stream(request, prefix)
        except UpstreamTimeout:
            self._silent_since = asyncio.get_running_loop().time()
            raise
        self._silent_since = None
        return response

    @property
    def busy(self) -> bool:
        """Whether a POST of alerts is on its way to it."""
        return bool(self._tasks)

    async def idle(self) -> None:
        """Wait until nothing is on its way to it."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        """Give up what is on its way to it."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _deliver(
        self,
        request: web.BaseRequest,
        body: bytes,
        deadline: float,
        without_annotations: Callable[[], bytes] | None,
        *,
        probes: bool,
    ) -> Answer:
        await self._wait_for_turn(len(body), deadline)
        try:
            if self.suspended and not probes:
                self._observer.dropped(self.name)  # found silent while this one waited
                raise UpstreamTimeout(f"Alertmanager at {self.name} does not answer, and is left alone")
            return await self._send(request, body, deadline, without_annotations)
        finally:
            self._turn.release()

    async def _wait_for_turn(self, size: int, deadline: float) -> None:
        self._waiting += size
        try:
            async with asyncio.timeout_at(deadline):
                await self._turn.acquire()
        except TimeoutError:
            self._observer.dropped(self.name)
            raise UpstreamTimeout(f"Alertmanager at {self.name} has not answered those before in time") from None
        finally:
            self._waiting -= size

    async def _send(
        self, request: web.BaseRequest, body: bytes, deadline: float, without_annotations: Callable[[], bytes] | None
    ) -> Answer:
        try:
            answer = await self._forwarder.post_alerts(request, body, deadline, without_annotations)
        except UpstreamTimeout:
            self._timeouts += 1
            self._silent_since, self._last = asyncio.get_running_loop().time(), "fails"
            if self._timeouts >= TIMEOUTS and not self.suspended:
                self._suspend(True)
                log.error("Alertmanager does not answer, and is left alone until it does", alertmanager=self.name)
            raise
        except UpstreamError as exc:
            self._timeouts = 0
            if self._last != "fails":
                log.warning("an Alertmanager of several fails", alertmanager=self.name, error=str(exc))
            self._last = "fails"
            raise
        self._timeouts, self._silent_since, self._last = 0, None, "answers"
        if self.suspended:
            self._suspend(False)
            log.info("Alertmanager answers again", alertmanager=self.name)
        return answer

    def _suspend(self, suspended: bool) -> None:
        self.suspended = suspended
        self._observer.suspended(self.name, suspended)

    def _ended(self, task: asyncio.Task[Answer]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (exc := task.exception()) and not isinstance(exc, UpstreamError):
            log.error("a bug: a POST was not delivered", alertmanager=self.name, exc_info=exc)


class Fanout:
    """Sends each POST of alerts to all Alertmanagers, and everything else to one."""

    streams_alerts = False

    def __init__(
        self, lanes: Callable[[], Sequence[Lane]], *, min_success: int, timeout: float, lag: float = LAG
    ) -> None:
        """`lanes` gives those there are now, `min_success` how many must have taken a POST, and `timeout` how many
        seconds it has."""
        self._lanes = lanes
        self._min_success = min_success
        self._timeout = timeout
        self._lag = lag
        self._leaving: Sequence[Lane] = ()

    def deadline(self) -> float:
        """Return when a request whose last byte arrived just now must have been answered, on the loop's clock."""
        return asyncio.get_running_loop().time() + self._timeout

    async def post_alerts(
        self,
        request: web.BaseRequest,
        body: bytes,
        deadline: float,
        without_annotations: Callable[[], bytes] | None = None,
        answered: Callable[[int, float], None] = lambda status, seconds: None,
    ) -> Answer:
        """Deliver `body` to all, and return the answer of the first that took it, once enough have.

        If not enough do: the first answer that is not 2xx; if there is none, raise UpstreamError or UpstreamTimeout.
        After a 4xx an Alertmanager gets what `without_annotations` returns. `answered` is not called.
        """
        lanes = self._lanes()
        if len(lanes) < self._min_success:
            known = f"{len(lanes)} of the {self._min_success} Alertmanagers are known that must take a POST"
            raise UpstreamError(known if lanes else "no Alertmanager is known")
        tasks = [lane.begin(request, body, deadline, without_annotations) for lane in lanes]
        begun = [task for task in tasks if task is not None]
        await self._wait(begun)
        answers = [task.result() for task in begun if _is_answered(task)]
        taken = [answer for answer in answers if _took(answer)]
        if len(taken) >= self._min_success:
            return taken[0]
        for answer in answers:
            if not _took(answer):
                return answer
        for task in begun:
            if task.done() and not task.cancelled() and (exc := task.exception()):
                raise exc
        raise UpstreamTimeout(
            f"{len(taken)} of {len(lanes)} Alertmanagers took it, and {self._min_success} must; the rest do not answer"
        )

    async def stream(self, request: web.BaseRequest, prefix: bytes = b"") -> web.StreamResponse:
        """Pass a request on to the first healthy Alertmanager, and to the next when a connection is refused."""
        failure = UpstreamError("no Alertmanager is known")
        for lane in sorted(self._lanes(), key=lambda lane: not lane.healthy):
            try:
                return await lane.stream(request, prefix)
            except UpstreamError as exc:
                failure = exc
                if not isinstance(exc.__cause__, aiohttp.ClientConnectorError):
                    raise  # it may have been applied, and its body has been read
        raise failure

    async def drained(self, at_most: float) -> None:
        """Wait for what is on its way, for `at_most` seconds, and give up the rest."""
        lanes = [*self._lanes(), *self._leaving]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(at_most):
                await asyncio.gather(*(lane.idle() for lane in lanes))
        await asyncio.gather(*(lane.close() for lane in lanes))

    def gone(self, lane: Lane) -> None:
        """Let an Alertmanager go: it gets nothing more, and what is on its way to it goes on."""
        self._leaving = [one for one in (*self._leaving, lane) if one.busy]

    async def _wait(self, pending: Sequence[asyncio.Task[Answer]]) -> None:
        """Wait until it is certain whether enough take it, and then a moment for the others."""
        left, taken = set(pending), 0
        while left and taken < self._min_success <= taken + len(left):
            done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
            taken += sum(_is_answered(task) and _took(task.result()) for task in done)
        if left:
            await asyncio.wait(left, timeout=self._lag)


def _is_answered(task: asyncio.Task[Answer]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


def _took(answer: Answer) -> bool:
    return 200 <= answer.status < 300
