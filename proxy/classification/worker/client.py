"""The model worker as the rest of the product sees it: a Classifier whose model lives in a child process.

    STOPPED ─start→ STARTING ─→ READY
                      ↑  │        │      the child crashes, hangs, or cannot be started
                      │  ↓        ↓
                    RESTARTING (after a wait that doubles)

    STARTING ─→ UNUSABLE   nothing to be done but change the settings
    any ─close→ STOPPED

What leaves this process, for the child and then the provider, is what `prompts.messages` makes of an alert. LiteLLM
never gets into this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from types import TracebackType
from typing import Final, Self

import structlog

from proxy.alert import Alert
from proxy.classification import answers, prompts
from proxy.classification.classification import Classification
from proxy.classification.worker.process import WorkerProcess
from proxy.classification.worker.protocol import (
    Answered,
    Ask,
    Cancel,
    Configure,
    Crashed,
    Failed,
    Message,
    ProtocolError,
    Ready,
    Unusable,
)
from proxy.errors import (
    ClassifierBusy,
    ClassifierError,
    ClassifierInvalidAnswer,
    ClassifierRejected,
    ClassifierTimeout,
    ClassifierUnavailable,
    ClassifierUnusable,
)

WAITING_LIMIT: Final = 1000
"""Calls that may wait for a place."""

# Seconds, all of them.
_GRACE = 2.0  # beyond its deadline, in which the child says so itself; also what it gets to end when asked
_LOAD_WITHIN = 180.0  # LiteLLM needs up to 10 s of CPU, and a container may give a tenth of one
_FIRST_WAIT = 0.5
_LONGEST_WAIT = 30.0
_STABLE_AFTER = 60.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Which model to ask, and how."""

    provider: str
    """`openai`, `anthropic`, `gemini`, `ollama`, or LiteLLM's name of another."""
    model: str
    """In the provider's words; the verdicts carry it."""
    api_key: str = field(repr=False)
    """Empty when the provider takes none, or LiteLLM finds it in the environment."""
    base_url: str | None
    """None for the provider's own."""
    timeout: timedelta
    """For one call from its turn to its verdict, retries included."""
    max_retries: int
    """Requests after the first, when the failure may pass."""
    concurrency: int
    """Calls at once."""
    max_tokens: int
    """Of one answer."""


class WorkerState(StrEnum):
    """See the module for the way from one to the other."""

    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    UNUSABLE = "unusable"


class ModelWorker:
    """A Classifier and an async context manager. Costs nothing but a task until it is started."""

    def __init__(
        self,
        config: ModelConfig,
        *,
        prompt: Callable[[Alert], Sequence[Mapping[str, str]]] = prompts.messages,
        on_state: Callable[[WorkerState], None] = lambda _: None,
        on_restart: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`prompt` makes the chat that leaves; `on_restart` is called each time a lost child is replaced.

        `clock` (seconds) and `sleep` time the restarts.
        """
        self._config = config
        self._prompt = prompt
        self._on_state = on_state
        self._on_restart = on_restart
        self._clock = clock
        self._sleep = sleep
        self._state = WorkerState.STOPPED
        self._why = ""
        self._settled = asyncio.Event()  # whether `_ready_process` can say yes or no
        self._settled.set()
        self._process: WorkerProcess | None = None
        self._ready_since: float | None = None
        self._life: asyncio.Task[None] | None = None
        self._places = asyncio.Semaphore(config.concurrency)
        self._waiting = 0
        self._numbers = itertools.count(1)
        # Errors travel as results: the exception of a future that nobody reads any more would be logged.
        self._pending: dict[int, asyncio.Future[Classification | ClassifierError]] = {}

    @property
    def state(self) -> WorkerState:
        return self._state

    @property
    def why_unusable(self) -> str:
        """For the operator; empty unless the state is UNUSABLE."""
        return self._why

    @property
    def pid(self) -> int | None:
        """Of the child; None while there is none."""
        return self._process.pid if self._process else None

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.close()

    def start(self) -> None:
        """Start the child and return at once; it is ready some seconds later. Calls made before then wait for it."""
        if self._life is None:
            self._enter(WorkerState.STARTING)
            self._life = asyncio.create_task(self._live(), name="model worker")

    async def close(self) -> None:
        """End the child within a few seconds; calls in flight raise ClassifierUnavailable."""
        life, self._life = self._life, None
        if life is None:
            return
        self._enter(WorkerState.STOPPED)
        life.cancel()
        await asyncio.wait([life])

    async def classify(self, alert: Alert) -> Classification:
        """Return the model's verdict on `alert`. Raises ClassifierError.

        Waiting for a place among `concurrency` calls is not limited in time, only in number; from then on the call
        takes at most `timeout` and two seconds. Cancelling it cancels the request to the provider.
        """
        async with self._place():
            ends = asyncio.get_running_loop().time() + self._config.timeout.total_seconds()
            try:
                async with asyncio.timeout_at(ends):
                    process = await self._ready_process()
            except TimeoutError:
                raise ClassifierTimeout("the model worker was not ready in time") from None
            return await self._call(process, self._prompt(alert), ends)

    @contextlib.asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        if self._places.locked():
            if self._waiting >= WAITING_LIMIT:
                raise ClassifierBusy(f"{WAITING_LIMIT} calls wait already")
            self._waiting += 1
            try:
                await self._places.acquire()
            finally:
                self._waiting -= 1
        else:
            await self._places.acquire()
        try:
            yield
        finally:
            self._places.release()

    async def _ready_process(self) -> WorkerProcess:
        while not self._settled.is_set():  # it may be lost again before a waiter runs
            await self._settled.wait()
        if self._state is WorkerState.UNUSABLE:
            raise ClassifierUnusable(self._why)
        if self._process is None:
            raise ClassifierUnavailable("the model worker is not running")
        return self._process

    async def _call(self, process: WorkerProcess, messages: Sequence[Mapping[str, str]], ends: float) -> Classification:
        loop = asyncio.get_running_loop()
        number = next(self._numbers)
        outcome = self._pending[number] = loop.create_future()
        try:
            process.send(Ask(number, messages, ends - loop.time()))
            async with asyncio.timeout_at(ends + _GRACE):
                result: Classification | ClassifierError = await outcome
        except ProtocolError:
            raise ClassifierRejected("the prompt is too long") from None
        except TimeoutError:
            if self._process is process and self._state is WorkerState.READY:
                log.warning("model worker hangs", pid=process.pid)
                self._enter(WorkerState.RESTARTING)  # at once: the next call shall not go to the same child
            process.kill()
            raise ClassifierTimeout("the model worker hangs and is replaced") from None
        except asyncio.CancelledError:
            process.send(Cancel(number))
            raise
        finally:
            del self._pending[number]
        if isinstance(result, ClassifierError):
            raise result
        return result

    async def _live(self) -> None:
        """Keep one child after the other, until cancelled or until it would be no use."""
        wait = _FIRST_WAIT
        while True:
            lost = await self._one_life()
            if self._state is WorkerState.UNUSABLE:
                return
            if self._ready_since is not None and self._clock() - self._ready_since >= _STABLE_AFTER:
                wait = _FIRST_WAIT
            log.warning("model worker lost", reason=lost, again_in_seconds=wait)
            self._enter(WorkerState.RESTARTING)
            await self._sleep(wait)
            wait = min(wait * 2, _LONGEST_WAIT)
            self._on_restart()
            self._enter(WorkerState.STARTING)

    async def _one_life(self) -> str:
        """Start a child and serve it until it ends. Return what ended it."""
        self._ready_since = None
        try:
            process = self._process = await WorkerProcess.start()
        except OSError as exc:
            return f"cannot be started: {exc.strerror}"
        try:
            reason = await self._serve(process)
        except Exception as exc:  # noqa: BLE001 - whatever a broken child sends costs classifications, never alerts
            reason = f"broken: {type(exc).__name__}"
        finally:
            # Not ready any more before anything is awaited, so that no call goes to a child that is being stopped.
            if self._state is WorkerState.READY:
                self._enter(WorkerState.RESTARTING)
            self._process = None
            for outcome in self._pending.values():
                if not outcome.done():
                    outcome.set_result(ClassifierUnavailable("the model worker was lost during the call"))
            # A child that still loads is deaf, and has nothing to lose.
            await process.stop(_GRACE if self._ready_since is not None else 0)
        return reason or f"exit code {process.exit_code}"

    async def _serve(self, process: WorkerProcess) -> str:
        """Return why there is nothing more to serve; empty when only the exit code can tell."""
        c = self._config
        started = self._clock()
        process.send(Configure(c.provider, c.model, c.api_key, c.base_url, c.max_retries, c.max_tokens))
        try:
            async with asyncio.timeout(_LOAD_WITHIN):
                first = await process.receive()
        except TimeoutError:
            return f"not ready in {_LOAD_WITHIN:.0f} s"
        match first:
            case Ready(version):
                self._ready_since = self._clock()
                log.info("model worker ready", litellm=version, seconds=round(self._ready_since - started, 1))
                self._enter(WorkerState.READY)
            case Unusable(why):
                self._why = why
                log.error("model worker unusable", reason=why)
                self._enter(WorkerState.UNUSABLE)
                return why
            case _:
                return _farewell(first)
        while (message := await process.receive()) and not isinstance(message, Crashed):
            self._settle(message)
        return _farewell(message)

    def _settle(self, message: Message) -> None:
        match message:
            case Answered(number, members):
                try:
                    result: Classification | ClassifierError = answers.verdict(members, self._config.model)
                except ClassifierInvalidAnswer as exc:
                    result = exc
            case Failed(number):
                result = message.error()
            case _:
                raise ProtocolError(type(message).__name__)
        # None: given up in the meantime.
        outcome = self._pending.get(number)
        if outcome is not None and not outcome.done():
            outcome.set_result(result)

    def _enter(self, state: WorkerState) -> None:
        if state is self._state:
            return
        self._state = state
        if state in (WorkerState.STARTING, WorkerState.RESTARTING):
            self._settled.clear()
        else:
            self._settled.set()
        self._on_state(state)


def _farewell(message: Message | None) -> str:
    """Return what a child says last about its end; empty when it says nothing, as one does that is killed."""
    return f"crashed: {message.error}" if isinstance(message, Crashed) else ""
