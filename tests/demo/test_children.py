"""Processes that end with the demo."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.demo import tether
from proxy.demo.children import Child, DemoError

LOOP = "import time\nwhile True: time.sleep(1)\n"


@pytest.fixture
async def start(tmp_path):
    started: list[Child] = []

    async def start(code: str, **options) -> Child:
        child = await Child.start("the program", [sys.executable, "-u", "-c", code], cwd=tmp_path, **options)
        started.append(child)
        return child

    yield start
    for child in started:
        await child.stop(5)


def runs(pid: int) -> bool:
    """Return whether a process is there and more than a name that nobody has waited for yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def gone(pid: int) -> None:
    async with asyncio.timeout(5):
        while runs(pid):
            await asyncio.sleep(0.02)


async def test_lines_are_heard_as_they_come(start):
    heard = []
    child = await start("print('one'); print('two')", on_line=heard.append)
    assert await child.ended == 0
    await child.stop(1)
    assert heard == ["one", "two"]


async def test_a_child_reads_nothing_from_the_terminal(start):
    heard = []
    child = await start("import sys; print(repr(sys.stdin.read()))", on_line=heard.append)
    await child.ended
    await child.stop(1)
    assert heard == ["''"]


async def test_a_child_is_not_told_the_key(start, monkeypatch):
    monkeypatch.setenv("LLM_API_KEY", "sk-made-up")
    monkeypatch.setenv("LANG", "C.UTF-8")
    heard = []
    child = await start("import os; print(os.getenv('LLM_API_KEY'), os.getenv('LANG'))", on_line=heard.append)
    await child.ended
    await child.stop(1)
    assert heard == ["None C.UTF-8"]


async def test_stopping_is_asking_first(start):
    heard = []
    child = await start(
        "import signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('asked'), sys.exit(7)))\n"
        "print('ready')\n" + LOOP,
        on_line=heard.append,
    )
    await child.becomes(lambda: _true_when(heard), within=10)
    await child.stop(10)
    assert heard == ["ready", "asked"]
    assert child.ended.result() == 7


async def test_a_child_that_does_not_listen_is_killed(start):
    heard = []
    child = await start(
        "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('ready')\n" + LOOP, on_line=heard.append
    )
    await child.becomes(lambda: _true_when(heard), within=10)
    await child.stop(0.1)
    assert child.ended.result() == -signal.SIGKILL


async def test_stopping_ends_what_the_child_started(start):
    heard = []
    child = await start(
        f"import subprocess, sys\nprint(subprocess.Popen([sys.executable, '-c', {LOOP!r}]).pid)\n" + LOOP,
        on_line=heard.append,
    )
    await child.becomes(lambda: _true_when(heard), within=10)
    grandchild = int(heard[0])
    assert runs(grandchild)
    await child.stop(5)
    await gone(grandchild)


async def test_a_child_that_ends_first_does_not_become_ready(start):
    child = await start("print('cannot: address in use'); raise SystemExit(3)")
    assert not await child.becomes(_never, within=10)
    failure = str(await child.failure())
    assert "the program ended by itself, with status 3" in failure
    assert "  | cannot: address in use" in failure


async def test_a_child_that_was_killed_is_named_with_the_signal(start):
    child = await start("import os; os.kill(os.getpid(), 9)")
    assert not await child.becomes(_never, within=10)
    assert str(await child.failure()) == "the program ended by itself, by signal 9. It said nothing."


async def test_a_child_that_never_becomes_ready_is_a_failure(start):
    child = await start(LOOP)
    with pytest.raises(DemoError, match="the program was not ready within 0 s"):
        await child.becomes(_never, within=0.1)


async def test_a_line_without_end_is_dropped(start):
    heard = []
    child = await start("print('x' * (3 << 20)); print('after')", on_line=heard.append)
    assert await child.ended == 0
    await child.stop(1)
    assert heard[-1] == "after"


async def test_a_program_that_is_not_there_ends_at_once(tmp_path):
    child = await Child.start("the program", ["/nonexistent/program"], cwd=tmp_path)
    assert not await child.becomes(_never, within=10)
    assert "FileNotFoundError" in str(await child.failure())


async def test_a_child_dies_with_a_parent_that_is_killed():
    tethered = [sys.executable, "-I", "-S", tether.__file__]
    code = (
        f"import os, subprocess, sys\nchild = [*{tethered!r}, str(os.getpid()), sys.executable, '-u', '-c']\n"
        f"subprocess.run([*child, 'import os; print(os.getpid())\\n' + {LOOP!r}])\n"
    )
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    pid = int(await asyncio.wait_for(parent.stdout.readline(), 10))
    assert runs(pid)
    parent.kill()
    try:
        await gone(pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        await parent.communicate()


def test_nothing_is_started_for_a_parent_that_is_gone():
    ours = os.getpid()
    done = subprocess.run(
        [sys.executable, "-I", "-S", tether.__file__, str(ours + 1), "echo", "started"],
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


async def _never() -> bool:
    return False


async def _true_when(heard: list[str]) -> bool:
    return bool(heard)
