"""The model worker as the rest of the product sees it: Classifiers whose models live in a child process.

    STOPPED ─start→ STARTING ─→ READY
                      ↑  │        │      the child crashes, hangs, or cannot be started
                      │  ↓        ↓
                    RESTARTING (after a wait that doubles)

    STARTING ─→ UNUSABLE   nothing to be done but change the settings
    any ─close→ STOPPED

What leaves this process, for the child and then the provider, is what `prompts` makes of an alert. LiteLLM
never gets into this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

import structlog

from proxy import classifiers
from proxy.alert import Alert
from proxy.classification import answers, batches
from proxy.classification.classification import Classification
from proxy.classification.classifier import BatchClassifier, Early, unheard
from proxy.classification.prompts import Prompt, Prompts
from proxy.classification.rendering import Rendering
from proxy.classification.spending import Budget, Hold
from proxy.classification.usage import Usage
from proxy.classification.worker.configuration import ModelConfig, WorkerState
from proxy.classification.worker.process import WorkerProcess
from proxy.classification.worker.protocol import (
    Answered,
    AnsweredAll,
    Ask,
    Cancel,
    Configure,
    Crashed,
    Failed,
    Keys,
    Labelled,
    Message,
    Model,
    ProtocolError,
    Ready,
    Streaming,
    Unusable,
)
from proxy.errors import (
    ClassifierError,
    ClassifierInvalidAnswer,
    ClassifierRejected,
    ClassifierTimeout,
    ClassifierUnavailable,
    ClassifierUnusable,
)

# Seconds, all of them.
_GRACE = 2.0  # beyond its deadline, in which the child says so itself; also what it gets to end when asked
_LOAD_WITHIN = 180.0  # LiteLLM needs up to 10 s of CPU, and a container may give a tenth of one
_FIRST_WAIT = 0.5
_LONGEST_WAIT = 30.0
_STABLE_AFTER = 60.0

log = structlog.get_logger(__name__)


# What a call hears. Errors travel as messages: the exception of a future that nobody reads any more would be logged.
_Said = Labelled | Answered | AnsweredAll | Failed | ClassifierUnavailable


class ModelWorker:
    """Some Classifiers and an async context manager. Costs nothing but a task until it is started."""

    def __init__(
        self,
        config: ModelConfig,
        *,
        prompt: Callable[[Alert], Prompt] | None = None,
        on_state: Callable[[WorkerState], None] = lambda _: None,
        on_restart: Callable[[], None] = lambda: None,
        on_usage: Callable[[int, Usage, int], None] = lambda _model, _usage, _alerts: None,
        budget: Budget | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`prompt` makes what leaves, by default with the shipped template. `on_restart` is called each time a lost
        child is replaced.

        `on_usage` hears, once for each call that the child answers, whatever the outcome, which model was asked, what
        that took, and how many alerts it was about. `budget` is asked before each call, and told how it ended.
        `clock` (seconds) and `sleep` time the restarts.
        """
        self._config = config
        self._rendered = Rendering(prompt or Prompts().render)
        self._on_state = on_state
        self._on_restart = on_restart
        self._on_usage = on_usage
        self._budget = budget
        self._clock = clock
        self._sleep = sleep
        self._state = WorkerState.STOPPED
        self._why = ""
        self._settled = asyncio.Event()  # whether `_ready_process` can say yes or no
        self._settled.set()
        self._process: WorkerProcess | None = None
        self._ready_since: float | None = None
        self._life: asyncio.Task[None] | None = None
        self._numbers = itertools.count(1)
        self._pending: dict[int, asyncio.Queue[_Said]] = {}
        self._cancelled: dict[int, tuple[Ask, Hold | None, asyncio.TimerHandle]] = {}
        """Calls that were given up: what was asked, what is reserved, when the child must have heard of it."""

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

    async def use_keys(self, models: Sequence[Model]) -> None:
        """Ask from now on with the keys of `models`, which are those of the configuration otherwise.

        A child that was given up for want of a usable model is started again.
        """
        self._config = replace(self._config, models=models)
        if self._state is WorkerState.UNUSABLE and self._life is not None:
            await asyncio.wait([self._life])
            self._why, self._life = "", None
            self.start()
        elif self._process is not None:
            self._process.send(Keys([model.api_key for model in models]))

    def classifier(self, model: int) -> BatchClassifier:
        """Return the classifier that asks the model of that place in the configuration."""
        return _OneModel(self, model, self._config.models[model].model)

    async def ask(
        self, model: int, alert: Alert, early: Early = unheard, seconds: float | None = None
    ) -> Classification:
        """Return the verdict of `model` on `alert`, after at most `timeout`, or `seconds` if that is less, and two
        seconds. Raises ClassifierError.

        Cancelling it cancels the request to the provider.
        """
        ends = self._ends(seconds)
        process = await self._process_before(ends)
        prompt = await self._rendered(alert)
        ask = self._question(model, prompt, ends)
        hold = await self._reserved(process, ask)
        [verdict] = await self._call(process, ask, ends, hold, early)
        if verdict is None:
            raise ClassifierInvalidAnswer("no verdict")
        return prompt.restored(verdict)

    async def ask_together(
        self, model: int, alerts: Sequence[Alert], seconds: float | None = None
    ) -> list[Classification | None]:
        """Return the verdicts of `model` on `alerts`, asked in one prompt; None on those that are to be asked alone.

        They are those that the model gave no verdict on, and those that do not fit in with the others. Otherwise as
        `ask`.
        """
        ends = self._ends(seconds)
        process = await self._process_before(ends)
        prompts: dict[int, Prompt] = {}
        for at, alert in enumerate(alerts):
            with contextlib.suppress(ClassifierUnusable):  # of a template, and known when it is asked alone
                prompts[at] = await self._rendered(alert)
        fitting = [list(prompts)[at] for at in batches.fit(list(prompts.values()))]
        found: list[Classification | None] = [None] * len(alerts)
        if len(fitting) < 2:
            return found
        batch = batches.batch([prompts[at] for at in fitting])
        ask = Ask(next(self._numbers), model, batch.messages, self._left(ends), names=batch.names)
        hold = await self._reserved(process, ask)
        for at, verdict in zip(fitting, await self._call(process, ask, ends, hold), strict=True):
            found[at] = verdict and prompts[at].restored(verdict)
        return found

    def _ends(self, seconds: float | None) -> float:
        own = self._config.timeout.total_seconds()
        return asyncio.get_running_loop().time() + (own if seconds is None else min(own, seconds))

    def _left(self, ends: float) -> float:
        return ends - asyncio.get_running_loop().time()

    async def _process_before(self, ends: float) -> WorkerProcess:
        try:
            async with asyncio.timeout_at(ends):
                return await self._ready_process()
        except TimeoutError:
            raise ClassifierTimeout("the model worker was not ready in time") from None

    async def _reserved(self, process: WorkerProcess, ask: Ask) -> Hold | None:
        """Return what the call may take. Raises ClassifierOverBudget."""
        if self._budget is None:
            return None
        size = sum(len(message["content"].encode(errors="replace")) for message in ask.messages)
        hold = await self._budget.reserve(ask.model, size, ask.alerts)
        if self._process is not process:  # nobody would tell this call that the child is gone
            hold.release()
            raise ClassifierUnavailable("the model worker was lost before the call")
        return hold

    async def _ready_process(self) -> WorkerProcess:
        while not self._settled.is_set():  # it may be lost again before a waiter runs
            await self._settled.wait()
        if self._state is WorkerState.UNUSABLE:
            raise ClassifierUnusable(self._why)
        if self._process is None:
            raise ClassifierUnavailable("the model worker is not running")
        return self._process

    async def _call(
        self, process: WorkerProcess, ask: Ask, ends: float, hold: Hold | None, early: Early = unheard
    ) -> list[Classification | None]:
        """Return the verdict on the alert of the question, or on each of them."""
        number, model = ask.call, ask.model
        loop = asyncio.get_running_loop()
        said = self._pending[number] = asyncio.Queue()
        held: Classification | None = None
        error: ClassifierError
        try:
            process.send(replace(ask, seconds=self._left(ends)))
            async with asyncio.timeout_at(ends + _GRACE):
                while isinstance(message := await said.get(), Labelled):
                    if held is None:
                        held = self._verdict(model, message.members)
                        early(held)
            if not isinstance(message, ClassifierError):
                self._used(ask, hold, message)
            if isinstance(message, Answered):
                return [self._verdict(model, message.members)]
            if isinstance(message, AnsweredAll):
                return self._verdicts(ask, message)
            error = message.error() if isinstance(message, Failed) else message
        except ProtocolError:
            if hold is not None:
                hold.release()
            error = ClassifierRejected("the prompt is too long")
        except ClassifierInvalidAnswer as invalid:
            error = invalid
        except TimeoutError:
            if self._over(ask, said, hold):
                error = ClassifierTimeout("no answer in time")
            else:
                self._hangs(process)
                error = ClassifierTimeout("the model worker hangs and is replaced")
        except asyncio.CancelledError:
            if not self._over(ask, said, hold):
                process.send(Cancel(number))
                self._cancelled[number] = ask, hold, loop.call_later(_GRACE, self._hangs, process)
                hold = None
            raise
        finally:
            del self._pending[number]
            _lost(hold)  # without effect unless nothing was heard of the call
        if held is None:
            raise error
        return [held]  # what was told early holds, whatever became of the rest

    def _over(self, ask: Ask, said: asyncio.Queue[_Said], hold: Hold | None) -> bool:
        """Return whether a call had its last message when its time was up: there will be no other to wait for.

        What it took is counted.
        """
        while not said.empty():
            message = said.get_nowait()
            if isinstance(message, Answered | AnsweredAll | Failed):
                self._used(ask, hold, message)
            if not isinstance(message, Labelled):
                return True
        return False

    def _question(self, model: int, prompt: Prompt, ends: float) -> Ask:
        ask = Ask(next(self._numbers), model, prompt.messages, self._left(ends))
        if self._config.models[model].provider != classifiers.PROVIDER:
            return ask
        return replace(ask, labels=prompt.labels, annotations=prompt.annotations)

    def _hangs(self, process: WorkerProcess) -> None:
        """End a child that says nothing any more."""
        if self._process is process and self._state is WorkerState.READY:
            log.warning("model worker hangs", pid=process.pid)
            self._enter(WorkerState.RESTARTING)  # at once: the next call shall not go to the same child
        process.kill()

    def _verdict(self, model: int, members: Mapping[str, object]) -> Classification:
        return answers.verdict(members, self._config.models[model].model)

    def _verdicts(self, ask: Ask, message: AnsweredAll) -> list[Classification | None]:
        if len(message.verdicts) != len(ask.names):
            raise ClassifierInvalidAnswer("not one verdict for each alert")
        return [None if members is None else self._verdict(ask.model, members) for members in message.verdicts]

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
            process = self._process = await WorkerProcess.start(self._config.withheld)
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
            for said in self._pending.values():
                said.put_nowait(ClassifierUnavailable("the model worker was lost during the call"))
            for _, hold, timer in self._cancelled.values():
                timer.cancel()
                _lost(hold)
            self._cancelled.clear()
            # A child that still loads is deaf, and has nothing to lose.
            await process.stop(_GRACE if self._ready_since is not None else 0)
        return reason or f"exit code {process.exit_code}"

    async def _serve(self, process: WorkerProcess) -> str:
        """Return why there is nothing more to serve; empty when only the exit code can tell."""
        c = self._config
        started = self._clock()
        process.send(Configure(c.models, c.max_retries, c.max_tokens, c.stream))
        try:
            async with asyncio.timeout(_LOAD_WITHIN):
                first = await process.receive()
        except TimeoutError:
            return f"not ready in {_LOAD_WITHIN:.0f} s"
        match first:
            case Ready(version, unusable, doubts):
                for model, why in zip(c.models, unusable, strict=True):
                    if why:
                        log.error("a model cannot be used", model=_name(model), reason=why)
                for model, why in zip(c.models, doubts, strict=False):
                    if why:
                        log.warning("a model may refuse us", model=_name(model), reason=why)
                self._ready_since = self._clock()
                log.info(
                    "model worker ready", litellm=version or "not needed", seconds=round(self._ready_since - started, 1)
                )
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
            case Labelled() | Answered() | AnsweredAll() | Failed():
                if (said := self._pending.get(message.call)) is not None:
                    said.put_nowait(message)
                elif not isinstance(message, Labelled) and (given_up := self._cancelled.pop(message.call, None)):
                    ask, hold, timer = given_up
                    timer.cancel()
                    self._used(ask, hold, message)
            case Streaming(model, works):
                name = _name(self._config.models[model])
                if works:
                    log.info("answers of a model are streamed again", model=name)
                else:
                    log.warning(
                        "answers of a model are not streamed for a while: two in a row broke off or were empty",
                        model=name,
                    )
            case _:
                raise ProtocolError(type(message).__name__)

    def _used(self, ask: Ask, hold: Hold | None, message: Answered | AnsweredAll | Failed) -> None:
        if hold is not None:
            hold.settle(message.usage, message.reason if isinstance(message, Failed) else "ok")
        self._on_usage(ask.model, message.usage, ask.alerts)

    def _enter(self, state: WorkerState) -> None:
        if state is self._state:
            return
        self._state = state
        if state in (WorkerState.STARTING, WorkerState.RESTARTING):
            self._settled.clear()
        else:
            self._settled.set()
        self._on_state(state)


@dataclass(frozen=True, slots=True)
class _OneModel:
    """A BatchClassifier."""

    _worker: ModelWorker
    _place: int
    name: str

    async def classify(self, alert: Alert, early: Early = unheard, seconds: float | None = None) -> Classification:
        return await self._worker.ask(self._place, alert, early, seconds)

    async def classify_together(
        self, alerts: Sequence[Alert], seconds: float | None = None
    ) -> Sequence[Classification | None]:
        return await self._worker.ask_together(self._place, alerts, seconds)


def _name(model: Model) -> str:
    return f"{model.provider}/{model.model}"


def _lost(hold: Hold | None) -> None:
    """Count a call as estimated: its provider may have worked on it, and nobody can say any more what that took."""
    if hold is not None:
        hold.settle(None, "unavailable")


def _farewell(message: Message | None) -> str:
    """Return what a child says last about its end; empty when it says nothing, as one does that is killed."""
    return f"crashed: {message.error}" if isinstance(message, Crashed) else ""
