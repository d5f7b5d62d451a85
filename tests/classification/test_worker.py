"""The real worker with the real LiteLLM against a provider on loopback.

LiteLLM takes seconds to load, so the workers are shared, and those that stand alone load while others work.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from fake_provider import (
    Drip,
    Empty,
    FakeProvider,
    Hang,
    Html,
    Reset,
    Slow,
    Status,
    Text,
    verdict,
)
from structlog.testing import capture_logs

from proxy.alert import Alert
from proxy.classification.classification import Category, Confidence, Severity, Source
from proxy.classification.worker import client
from proxy.classification.worker.client import ModelConfig, ModelWorker, WorkerState
from proxy.classification.worker.process import WorkerProcess
from proxy.classification.worker.protocol import (
    Answered,
    Ask,
    Cancel,
    Crashed,
    Failed,
    Message,
    ProtocolError,
    Ready,
)
from proxy.errors import (
    ClassifierBusy,
    ClassifierInvalidAnswer,
    ClassifierRateLimited,
    ClassifierRejected,
    ClassifierTimeout,
    ClassifierUnavailable,
    ClassifierUnusable,
)

in_module_loop = pytest.mark.asyncio(loop_scope="module")

SECRET = "sk-this-key-is-secret"
ALERT = Alert({"alertname": "DiskFull", "severity": "critical"}, {"summary": "sda is 97% full"})
PROVIDERS = {
    "openai": ("gpt-4o", "/v1/chat/completions"),
    "anthropic": ("claude-haiku-4-5", "/v1/messages"),
    "gemini": ("gemini-2.5-flash", "/v1beta/models/gemini-2.5-flash:generateContent"),
    "ollama": ("llama3.2", "/api/chat"),
}


def config(provider: str = "openai", base_url: str | None = None, **changes: object) -> ModelConfig:
    whole = ModelConfig(
        provider=provider,
        model=PROVIDERS.get(provider, ("m", ""))[0],
        api_key=SECRET,
        base_url=base_url,
        timeout=timedelta(seconds=60),
        max_retries=2,
        concurrency=2,
        max_tokens=300,
    )
    return replace(whole, **changes)


class Watched:
    """A worker, and what it told."""

    def __init__(self, config: ModelConfig, **hooks: object) -> None:
        self.states: list[WorkerState] = []
        self.restarts = 0
        self._changed = asyncio.Event()
        self.worker = ModelWorker(config, on_state=self._state, on_restart=self._restart, **hooks)

    def _state(self, state: WorkerState) -> None:
        self.states.append(state)
        self._changed.set()

    def _restart(self) -> None:
        self.restarts += 1

    async def reach(self, state: WorkerState) -> None:
        async with asyncio.timeout(60):
            while self.worker.state is not state:
                self._changed.clear()
                await self._changed.wait()


def of_process(pid: int | None, name: str) -> bytes:
    return Path(f"/proc/{pid}/{name}").read_bytes()


async def gone(pid: int) -> None:
    """Return once the process has ended, whoever's child it is."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(fd, ended.set)
    try:
        async with asyncio.timeout(20):
            await ended.wait()
    finally:
        asyncio.get_running_loop().remove_reader(fd)
        os.close(fd)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def far_end() -> AsyncIterator[FakeProvider]:
    async with FakeProvider() as provider:
        yield provider


@pytest.fixture
def provider(far_end: FakeProvider) -> FakeProvider:
    far_end.forget()
    return far_end


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def workers(far_end: FakeProvider) -> AsyncIterator[dict[str, Watched]]:
    """One ready worker for each provider, and a hasty one, all loaded at the same time."""
    watched = {name: Watched(config(name, far_end.url)) for name in PROVIDERS}
    watched["hasty"] = Watched(config(base_url=far_end.url, timeout=timedelta(seconds=2)))
    for one in watched.values():
        one.worker.start()
    await asyncio.gather(*(one.reach(WorkerState.READY) for one in watched.values()))
    yield watched
    await asyncio.gather(*(one.worker.close() for one in watched.values()))


@pytest.fixture
def patient(workers: dict[str, Watched]) -> Watched:
    return workers["openai"]


@pytest.fixture
def hasty(workers: dict[str, Watched]) -> Watched:
    return workers["hasty"]


# The model and its answers


@in_module_loop
@pytest.mark.parametrize("name", PROVIDERS)
async def test_a_verdict_comes_through_every_provider(name: str, workers: dict[str, Watched], provider: FakeProvider):
    provider.answers = [verdict(severity="critical", category="storage", confidence="high")]
    found = await workers[name].worker.classify(ALERT)

    model, path = PROVIDERS[name]
    assert (found.severity, found.category, found.confidence) == (Severity.CRITICAL, Category.STORAGE, Confidence.HIGH)
    assert (found.source, found.model) == (Source.LLM, model)
    assert (found.summary, found.recommendations) == ("The disk fills up.", ("Delete old files.",))
    request = provider.requests[0]
    assert request.path == path
    assert request.key == SECRET
    assert "sda is 97% full" in request.prompt
    assert "300" in request.prompt  # max_tokens, whatever it is called here
    assert '"recommendations": {"type": "array"' in request.prompt  # the schema
    assert len(provider.requests) == 1


@in_module_loop
@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize(
    ("answer", "error", "requests"),
    [
        pytest.param(Status(401), ClassifierRejected, 1, id="a bad key is not tried again"),
        pytest.param(Status(404), ClassifierRejected, 1, id="nor is an unknown model"),
        pytest.param(Status(500, {"Retry-After": "0"}), ClassifierUnavailable, 3, id="a failing server is"),
        pytest.param(Status(429, {"Retry-After": "0"}), ClassifierRateLimited, 3, id="a full one is"),
        pytest.param(Text("The disk is full."), ClassifierInvalidAnswer, 2, id="prose is asked about once"),
        pytest.param(Text('{"severity":"urgent"}'), ClassifierInvalidAnswer, 2, id="so is an unknown severity"),
        pytest.param(Empty(), ClassifierInvalidAnswer, 2, id="so is an empty answer"),
    ],
)
async def test_failures_of_every_provider(
    name: str,
    answer: object,
    error: type[Exception],
    requests: int,
    workers: dict[str, Watched],
    provider: FakeProvider,
):
    provider.answers = [answer]
    with pytest.raises(error) as failed:
        await workers[name].worker.classify(ALERT)
    assert len(provider.requests) == requests
    assert SECRET not in repr(failed.value)
    assert "refused" not in repr(failed.value)  # a word of the provider's message


@in_module_loop
@pytest.mark.parametrize("answer", [Reset(), Html()], ids=["a reset", "a page of HTML"])
async def test_what_is_no_answer_of_a_model_may_pass(answer: object, patient: Watched, provider: FakeProvider):
    provider.answers = [answer, verdict()]
    assert (await patient.worker.classify(ALERT)).severity is Severity.WARNING
    assert len(provider.requests) == 2


@in_module_loop
@pytest.mark.parametrize("name", PROVIDERS)
async def test_retry_after_is_obeyed(name: str, workers: dict[str, Watched], provider: FakeProvider):
    provider.answers = [Status(429, {"Retry-After": "1"}), verdict()]
    await workers[name].worker.classify(ALERT)
    first, second = provider.requests
    assert second.at - first.at >= 1


@in_module_loop
@pytest.mark.parametrize("name", PROVIDERS)
async def test_a_retry_after_beyond_the_deadline_is_given_up_at_once(
    name: str, workers: dict[str, Watched], provider: FakeProvider
):
    provider.answers = [Status(429, {"Retry-After": "3600"}), verdict()]
    async with asyncio.timeout(10):
        with pytest.raises(ClassifierRateLimited):
            await workers[name].worker.classify(ALERT)
    assert len(provider.requests) == 1


@in_module_loop
async def test_a_failure_that_passes_costs_one_more_request(patient: Watched, provider: FakeProvider):
    provider.answers = [Status(500), verdict()]
    assert (await patient.worker.classify(ALERT)).severity is Severity.WARNING
    assert len(provider.requests) == 2


@in_module_loop
@pytest.mark.parametrize("answer", [Hang(), Drip(verdict().text, 0.05)], ids=["silence", "a dripping answer"])
async def test_the_deadline_bounds_the_whole_call(answer: object, hasty: Watched, provider: FakeProvider):
    provider.answers = [answer]
    pid, began = hasty.worker.pid, time.monotonic()
    with pytest.raises(ClassifierTimeout, match="no answer in time"):  # the child's words: it did not hang
        await hasty.worker.classify(ALERT)
    assert 1.9 < time.monotonic() - began < 4
    assert hasty.worker.pid == pid


@in_module_loop
async def test_cancel_reaches_the_provider(patient: Watched, provider: FakeProvider):
    provider.answers = [Hang()]
    call = asyncio.create_task(patient.worker.classify(ALERT))
    request = await provider.request(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    async with asyncio.timeout(5):
        await request.hung_up.wait()


@in_module_loop
async def test_no_more_calls_at_once_than_allowed(patient: Watched, provider: FakeProvider):
    provider.answers = [Slow(verdict(), 0.1)]
    await asyncio.gather(*(patient.worker.classify(ALERT) for _ in range(6)))
    assert len(provider.requests) == 6
    assert provider.most_at_once == 2


@in_module_loop
async def test_a_full_queue_is_said_at_once(patient: Watched, provider: FakeProvider, monkeypatch):
    monkeypatch.setattr(client, "WAITING_LIMIT", 1)
    provider.answers = [Hang()]
    calls = [asyncio.create_task(patient.worker.classify(ALERT)) for _ in range(3)]
    await provider.request(1)
    with pytest.raises(ClassifierBusy):
        await patient.worker.classify(ALERT)
    for call in calls:
        call.cancel()
    assert all(isinstance(r, asyncio.CancelledError) for r in await asyncio.gather(*calls, return_exceptions=True))
    provider.forget()
    await patient.worker.classify(ALERT)  # the places are free again


@in_module_loop
async def test_a_prompt_beyond_all_bounds_is_refused(patient: Watched, provider: FakeProvider, monkeypatch):
    monkeypatch.setattr(patient.worker, "_prompt", lambda _: [{"role": "user", "content": "x" * 2_000_000}])
    with pytest.raises(ClassifierRejected, match="too long"):
        await patient.worker.classify(ALERT)
    assert provider.requests == []


# The process


@in_module_loop
async def test_the_key_is_in_no_argument_and_no_variable(patient: Watched):
    for name in ("cmdline", "environ"):
        assert SECRET.encode() not in of_process(patient.worker.pid, name)


@in_module_loop
async def test_the_child_gives_way(patient: Watched):
    pid = patient.worker.pid
    assert pid is not None
    assert os.getpriority(os.PRIO_PROCESS, pid) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 10)
    assert os.getsid(pid) != os.getsid(0)  # Ctrl-C does not reach it


@in_module_loop
async def test_a_killed_child_costs_the_call_and_is_replaced(patient: Watched, provider: FakeProvider):
    provider.answers = [Hang(), verdict()]
    pid, restarts = patient.worker.pid, patient.restarts
    assert pid is not None
    call = asyncio.create_task(patient.worker.classify(ALERT))
    await provider.request(0)
    os.kill(pid, signal.SIGKILL)
    with capture_logs() as logs:
        with pytest.raises(ClassifierUnavailable):
            await call
        assert (await patient.worker.classify(ALERT)).severity is Severity.WARNING  # made at once, it waits
    assert logs[0]["reason"] == "exit code -9"
    assert patient.worker.pid != pid
    assert patient.restarts == restarts + 1
    assert patient.states[-3:] == [WorkerState.RESTARTING, WorkerState.STARTING, WorkerState.READY]


@in_module_loop
async def test_a_hung_child_is_replaced(hasty: Watched, provider: FakeProvider):
    pid, restarts = hasty.worker.pid, hasty.restarts
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(ClassifierTimeout, match="hangs"):
        await hasty.worker.classify(ALERT)
    assert 3.9 < time.monotonic() - began < 6
    assert hasty.worker.state is WorkerState.RESTARTING  # already: the next call waits for the next child
    await gone(pid)
    await hasty.reach(WorkerState.READY)
    assert hasty.restarts == restarts + 1
    assert (await hasty.worker.classify(ALERT)).severity is Severity.WARNING


@in_module_loop
async def test_an_unknown_provider_is_unusable_and_stays_so(provider: FakeProvider):
    watched = Watched(config("opanai", provider.url), sleep=Sleeps(2))
    async with watched.worker as worker:
        with pytest.raises(ClassifierUnusable, match="LiteLLM knows no provider 'opanai'"):
            await worker.classify(ALERT)
        assert worker.why_unusable == "LiteLLM knows no provider 'opanai'"
        assert watched.states == [WorkerState.STARTING, WorkerState.UNUSABLE]
        assert worker._life is not None
        await asyncio.wait_for(worker._life, 10)  # nobody waits to start it again
        with pytest.raises(ClassifierUnusable):
            await worker.classify(ALERT)
    assert worker.pid is None
    assert watched.restarts == 0


@in_module_loop
async def test_closing_a_child_that_loads_does_not_wait_for_it(provider: FakeProvider, monkeypatch):
    born: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    start = WorkerProcess.start

    async def seen() -> WorkerProcess:
        process = await start()
        born.set_result(process.pid)
        return process

    monkeypatch.setattr(WorkerProcess, "start", seen)
    watched = Watched(config(base_url=provider.url))
    watched.worker.start()
    call = asyncio.create_task(watched.worker.classify(ALERT))
    pid = await born
    async with asyncio.timeout(2):
        await watched.worker.close()
    with pytest.raises(ProcessLookupError):  # reaped too
        os.kill(pid, 0)
    with pytest.raises(ClassifierUnavailable):
        await call
    with pytest.raises(ClassifierUnavailable):
        await watched.worker.classify(ALERT)


async def test_a_missing_litellm_is_unusable(tmp_path, monkeypatch):
    (tmp_path / "litellm.py").write_text("import no_such_module")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    async with ModelWorker(config()) as worker:
        with pytest.raises(
            ClassifierUnusable, match="LiteLLM cannot be imported: ModuleNotFoundError for no_such_module"
        ):
            await worker.classify(ALERT)


async def test_a_crash_is_named_without_its_message(tmp_path, monkeypatch):
    (tmp_path / "litellm.py").write_text(f"raise MemoryError('{SECRET}')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    sleeps = Sleeps(1)
    with capture_logs() as logs:
        async with Watched(config(), sleep=sleeps).worker:
            await sleeps.over.wait()
    assert logs == [
        {
            "event": "model worker lost",
            "log_level": "warning",
            "reason": "crashed: MemoryError",
            "again_in_seconds": 0.5,
        }
    ]


# What a process sees that uses the worker and is then killed.
PARENT = textwrap.dedent("""
    import asyncio, json, sys
    from datetime import timedelta
    from proxy.alert import Alert
    from proxy.classification.worker.client import ModelConfig, ModelWorker

    async def main():
        config = ModelConfig("openai", "gpt-4o", "sk", sys.argv[1], timedelta(seconds=60), 0, 1, 300)
        async with ModelWorker(config) as worker:
            verdict = await worker.classify(Alert({"alertname": "DiskFull"}))
            print(json.dumps({"pid": worker.pid, "severity": verdict.severity, "modules": sorted(sys.modules)}))
            sys.stdout.flush()
            await asyncio.Event().wait()

    asyncio.run(main())
""")


@in_module_loop
async def test_the_parent_stays_free_of_litellm_and_leaves_no_orphan(provider: FakeProvider):
    parent = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PARENT,
        provider.url,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        stdout=asyncio.subprocess.PIPE,
    )
    assert parent.stdout is not None
    try:
        async with asyncio.timeout(60):
            while not (line := await parent.stdout.readline()).startswith(b"{"):  # past its log
                assert line
        seen = json.loads(line)
        assert seen["severity"] == "warning"
        assert not {"litellm", "openai", "httpx", "backoff"} & set(seen["modules"])
        assert not any(m.startswith("proxy.classification.worker.litellm") for m in seen["modules"])
    finally:
        parent.kill()
        await parent.wait()
    await gone(seen["pid"])


# The supervision, with children that play a part


class FakeProcess:
    """Says what it is told to, then ends, or stays to be asked and killed."""

    pid = 1
    exit_code = 0

    def __init__(
        self, *said: Message | Exception, stays: bool = False, answer: Callable[[Ask], Message] | None = None
    ) -> None:
        self._said: asyncio.Queue[Message | Exception | None] = asyncio.Queue()
        for message in said:
            self._said.put_nowait(message)
        self._stays = stays
        self._answer = answer
        self.stopped = False

    def send(self, message: Message) -> None:
        if self._answer and isinstance(message, Ask):
            self._said.put_nowait(self._answer(message))

    async def receive(self) -> Message | None:
        if self._said.empty() and not self._stays:
            return None
        said = await self._said.get()
        if isinstance(said, Exception):
            raise said
        return said

    def kill(self) -> None:
        self._said.put_nowait(None)

    async def stop(self, grace: float) -> None:
        self.stopped = True


class Sleeps:
    """Waits that take no time and are remembered; the last one never ends."""

    def __init__(self, number: int) -> None:
        self.seconds: list[float] = []
        self.over = asyncio.Event()
        self._number = number

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        if len(self.seconds) == self._number:
            self.over.set()
            await asyncio.Event().wait()


def children(monkeypatch: pytest.MonkeyPatch, make: Callable[[], object]) -> None:
    async def start() -> object:
        made = make()
        if isinstance(made, Exception):
            raise made
        return made

    monkeypatch.setattr(WorkerProcess, "start", start)


@pytest.mark.parametrize(
    "lost",
    [
        pytest.param(lambda: OSError(11, "Resource temporarily unavailable"), id="cannot be started"),
        pytest.param(FakeProcess, id="ends before it is ready"),
        pytest.param(lambda: FakeProcess(Crashed("MemoryError")), id="crashes while it loads"),
        pytest.param(lambda: FakeProcess(Ready("1")), id="ends when ready"),
        pytest.param(lambda: FakeProcess(Ready("1"), Crashed("KeyError")), id="crashes when ready"),
        pytest.param(lambda: FakeProcess(Ready("1"), ProtocolError("x")), id="talks nonsense"),
        pytest.param(lambda: FakeProcess(Ready("1"), Cancel(1)), id="says what only a parent says"),
        pytest.param(lambda: FakeProcess(Ready("1"), Failed(1, "x", None)), id="says it with wrong types"),  # type: ignore[arg-type] # the point
    ],
)
async def test_restarts_are_spaced_further_and_further(lost: Callable[[], object], monkeypatch):
    children(monkeypatch, lost)
    sleeps = Sleeps(9)
    watched = Watched(config(), sleep=sleeps)
    async with watched.worker:
        await sleeps.over.wait()
    assert sleeps.seconds == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert watched.restarts == 8


async def test_a_stable_life_starts_the_waits_anew(monkeypatch):
    children(monkeypatch, lambda: FakeProcess(Ready("1")))
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 31
        return now

    # A life asks for the time when it starts, is ready and is lost: 31 s stable, short of the minute.
    sleeps = Sleeps(3)
    async with Watched(config(), sleep=sleeps, clock=clock).worker:
        await sleeps.over.wait()
    assert sleeps.seconds == [0.5, 1, 2]

    def fast_clock() -> float:
        nonlocal now
        now += 60
        return now

    sleeps = Sleeps(3)
    async with Watched(config(), sleep=sleeps, clock=fast_clock).worker:
        await sleeps.over.wait()
    assert sleeps.seconds == [0.5, 0.5, 0.5]


async def test_a_child_that_never_gets_ready_is_replaced(monkeypatch):
    born: list[FakeProcess] = []

    def deaf() -> FakeProcess:
        born.append(FakeProcess(stays=True))
        return born[-1]

    children(monkeypatch, deaf)
    monkeypatch.setattr(client, "_LOAD_WITHIN", 0.01)
    sleeps = Sleeps(2)
    async with Watched(config(), sleep=sleeps).worker:
        await sleeps.over.wait()
    assert [child.stopped for child in born] == [True, True]


async def test_a_call_does_not_wait_for_a_child_beyond_its_deadline(monkeypatch):
    children(monkeypatch, lambda: FakeProcess(stays=True))
    async with ModelWorker(config(timeout=timedelta(seconds=0.05))) as worker:
        with pytest.raises(ClassifierTimeout, match="not ready"):
            await worker.classify(ALERT)


async def test_the_parent_judges_again_what_the_child_says(monkeypatch):
    children(
        monkeypatch,
        lambda: FakeProcess(Ready("1"), stays=True, answer=lambda ask: Answered(ask.call, {"severity": "urgent"})),
    )
    async with ModelWorker(config()) as worker:
        with pytest.raises(ClassifierInvalidAnswer, match="unknown severity"):
            await worker.classify(ALERT)


async def test_a_worker_never_started_says_so():
    with pytest.raises(ClassifierUnavailable):
        await ModelWorker(config()).classify(ALERT)


def test_the_key_is_in_no_repr():
    assert SECRET not in repr(config())
