"""The worker's process, with the real LiteLLM in it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Collection
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from fake_provider import FakeProvider, Hang, verdict
from structlog.testing import capture_logs
from workers import ALERT, SECRET, Sleeps, Watched, a_model, config, gone

from proxy.classification.classification import Severity
from proxy.classification.worker import client
from proxy.classification.worker.client import ModelWorker
from proxy.classification.worker.configuration import WorkerState
from proxy.classification.worker.process import WorkerProcess
from proxy.errors import ClassifierTimeout, ClassifierUnavailable, ClassifierUnusable

in_module_loop = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def patient(far_end: FakeProvider) -> AsyncIterator[Watched]:
    models = a_model("openai", far_end.url), a_model("opanai", far_end.url)
    watched = Watched(config(*models, withheld={"STORE_PASSWORD"}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORE_PASSWORD", SECRET)
        async with watched.worker:
            await watched.reach(WorkerState.READY)
            yield watched


def of_process(pid: int | None, name: str) -> bytes:
    return Path(f"/proc/{pid}/{name}").read_bytes()


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
    call = asyncio.create_task(patient.worker.classifier(0).classify(ALERT))
    await provider.request(0)
    os.kill(pid, signal.SIGKILL)
    with capture_logs() as logs:
        with pytest.raises(ClassifierUnavailable):
            await call
        assert (
            await patient.worker.classifier(0).classify(ALERT)
        ).severity is Severity.WARNING  # made at once, it waits
    assert logs[0]["reason"] == "exit code -9"
    assert patient.worker.pid != pid
    assert patient.restarts == restarts + 1
    assert patient.states[-3:] == [WorkerState.RESTARTING, WorkerState.STARTING, WorkerState.READY]


@in_module_loop
async def test_a_hung_child_is_replaced(patient: Watched, provider: FakeProvider, monkeypatch):
    monkeypatch.setattr(patient.worker, "_config", replace(patient.worker._config, timeout=timedelta(seconds=2)))
    pid, restarts = patient.worker.pid, patient.restarts
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(ClassifierTimeout, match="hangs"):
        await patient.worker.classifier(0).classify(ALERT)
    assert 3.9 < time.monotonic() - began < 15  # a busy machine may add to it
    assert patient.worker.state is WorkerState.RESTARTING  # already: the next call waits for the next child
    await gone(pid)
    await patient.reach(WorkerState.READY)
    monkeypatch.undo()
    assert patient.restarts == restarts + 1
    assert (await patient.worker.classifier(0).classify(ALERT)).severity is Severity.WARNING


@in_module_loop
async def test_a_child_that_does_not_hear_that_a_call_is_given_up_is_replaced(patient: Watched, provider: FakeProvider):
    """As where other models are to be asked in the time that is left: its own deadline is never reached."""
    provider.answers = [Hang()]
    pid = patient.worker.pid
    assert pid is not None
    calls = [asyncio.create_task(patient.worker.classifier(0).classify(ALERT)) for _ in range(2)]
    await provider.request(1)
    calls[0].cancel()
    await asyncio.sleep(client._GRACE + 0.5)
    assert (patient.worker.pid, patient.worker.state) == (pid, WorkerState.READY), "it has heard of it"
    os.kill(pid, signal.SIGSTOP)
    calls[1].cancel()
    await gone(pid)
    await patient.reach(WorkerState.READY)
    provider.answers = [verdict()]
    assert (await patient.worker.classifier(0).classify(ALERT)).severity is Severity.WARNING


@in_module_loop
async def test_an_unknown_provider_is_unusable_and_stays_so(provider: FakeProvider):
    watched = Watched(config(a_model("opanai", provider.url)), sleep=Sleeps(2))
    async with watched.worker as worker:
        with pytest.raises(ClassifierUnusable, match="LiteLLM knows no provider 'opanai'"):
            await worker.classifier(0).classify(ALERT)
        assert worker.why_unusable == "LiteLLM knows no provider 'opanai'"
        assert watched.states == [WorkerState.STARTING, WorkerState.UNUSABLE]
        assert worker._life is not None
        await asyncio.wait_for(worker._life, 10)  # nobody waits to start it again
        with pytest.raises(ClassifierUnusable):
            await worker.classifier(0).classify(ALERT)
    assert worker.pid is None
    assert watched.restarts == 0


@in_module_loop
async def test_one_unusable_model_leaves_the_others_in_use(patient: Watched, provider: FakeProvider):
    with pytest.raises(ClassifierUnusable, match="LiteLLM knows no provider 'opanai'"):
        await patient.worker.classifier(1).classify(ALERT)
    assert (await patient.worker.classifier(0).classify(ALERT)).severity is Severity.WARNING
    assert patient.worker.state is WorkerState.READY


@in_module_loop
async def test_closing_a_child_that_loads_does_not_wait_for_it(provider: FakeProvider, monkeypatch):
    born: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    start = WorkerProcess.start

    async def seen(withheld: Collection[str]) -> WorkerProcess:
        process = await start(withheld)
        born.set_result(process.pid)
        return process

    monkeypatch.setattr(WorkerProcess, "start", seen)
    watched = Watched(config(a_model(base_url=provider.url)))
    watched.worker.start()
    call = asyncio.create_task(watched.worker.classifier(0).classify(ALERT))
    pid = await born
    async with asyncio.timeout(2):
        await watched.worker.close()
    with pytest.raises(ProcessLookupError):  # reaped too
        os.kill(pid, 0)
    with pytest.raises(ClassifierUnavailable):
        await call
    with pytest.raises(ClassifierUnavailable):
        await watched.worker.classifier(0).classify(ALERT)


async def test_a_missing_litellm_is_unusable(tmp_path, monkeypatch):
    (tmp_path / "litellm.py").write_text("import no_such_module")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    async with ModelWorker(config(a_model(), a_model("ollama"))) as worker:
        with pytest.raises(
            ClassifierUnusable, match=r"^LiteLLM cannot be imported: ModuleNotFoundError for no_such_module$"
        ):
            await worker.classifier(0).classify(ALERT)


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
    from proxy.classification.worker.client import ModelWorker
    from proxy.classification.worker.configuration import ModelConfig
    from proxy.classification.worker.protocol import Model

    async def main():
        models = [Model("openai", "gpt-4o", "sk", sys.argv[1])]
        config = ModelConfig(models, timedelta(seconds=60), 0, 300, True, frozenset())
        async with ModelWorker(config) as worker:
            verdict = await worker.classifier(0).classify(Alert({"alertname": "DiskFull"}))
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
