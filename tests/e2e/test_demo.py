"""`alertmanager-ai-proxy demo`, from its start to the last of its processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from fake_provider import FakeProvider, verdict

from proxy.demo.notifications import RECEIVERS
from proxy.demo.play import play
from proxy.demo.stage import alertnames

DEFAULT_PORTS = (9090, 9093, 19093, 19094)
UP = "The first alerts"


@dataclass
class Demo:
    """A demo that runs, and what it has printed."""

    process: asyncio.subprocess.Process
    lines: list[str] = field(default_factory=list)

    async def until(self, pattern: str) -> str:
        """Read on until a line matches, and return it."""
        while raw := await self.process.stdout.readline():
            self.lines.append(raw.decode().rstrip())
            if re.search(pattern, self.lines[-1]):
                return self.lines[-1]
        raise AssertionError("\n".join(["it ended too early:", *self.lines]))

    async def end(self) -> int:
        """Read the rest, and return the exit status."""
        self.lines += (await self.process.stdout.read()).decode().splitlines()
        return await self.process.wait()

    @property
    def rows(self) -> list[dict[str, str]]:
        """The table."""
        heading = next(i for i, line in enumerate(self.lines) if line.startswith("alert "))
        names = self.lines[heading].split()
        cells = [line.split() for line in self.lines[heading + 2 :]]
        return [dict(zip(names, row, strict=True)) for row in cells if len(row) == len(names)]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Where a demo may leave something behind."""
    directory = tmp_path / "tmp"
    directory.mkdir()
    monkeypatch.setenv("TMPDIR", str(directory))
    for name in [name for name in os.environ if name.startswith("LLM_")]:
        monkeypatch.delenv(name)
    return directory


@asynccontextmanager
async def demo(*arguments: str, **environment: str) -> AsyncIterator[Demo]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy", "demo", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=os.environ | environment,
    )
    try:
        yield Demo(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@contextlib.contextmanager
def occupied(*ports: int) -> Iterator[set[int]]:
    """Listen on the ports, and yield those: somebody else may listen on the others, and stop at any time."""
    with contextlib.ExitStack() as stack:
        ours = set()
        for port in ports:
            with contextlib.suppress(OSError):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
                ours.add(port)
        yield ours


def descendants(pid: int) -> dict[int, str]:
    """Return the processes that `pid` started, and those that they started, with their command lines."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            children.setdefault(int(stat(entry)[1]), []).append(int(entry.name))
    found: dict[int, str] = {}
    todo = list(children.get(pid, []))
    while todo:
        one = todo.pop()
        with contextlib.suppress(OSError):
            found[one] = Path(f"/proc/{one}/cmdline").read_text().replace("\0", " ")
        todo += children.get(one, [])
    return found


def stat(entry: Path) -> list[str]:
    """Return the fields of a process: its state, its parent and so on."""
    return (entry / "stat").read_text().rsplit(")", 1)[1].split()


def runs(pid: int) -> bool:
    try:
        return stat(Path(f"/proc/{pid}"))[0] != "Z"
    except OSError:
        return False


async def all_gone(processes: dict[int, str], *, within: float) -> None:
    deadline = time.monotonic() + within
    while left := {pid: command for pid, command in processes.items() if runs(pid)}:
        assert time.monotonic() < deadline, left
        await asyncio.sleep(0.05)


async def test_once_shows_where_each_alert_went_and_leaves_nothing(home):
    with occupied(*DEFAULT_PORTS) as taken:
        async with demo("--once") as running:
            begun = time.monotonic()
            await running.until(UP)
            started = descendants(running.process.pid)
            assert await running.end() == 0, running.lines
            assert time.monotonic() - begun < 90
    assert len(started) == 3, started
    await all_gone(started, within=0)
    assert list(home.iterdir()) == []

    addresses = [found[1] for line in running.lines if (found := re.search(r"http://127\.0\.0\.1:(\d+)/", line))]
    assert len(set(addresses)) == 3
    assert not set(map(int, addresses)) & taken

    assert {row["alert"] for row in running.rows} == alertnames()
    for row in running.rows:
        if row["alert"] == "Watchdog":
            assert (row["ai_severity"], row["source"], row["receiver"]) == ("-", "-", "default")
        else:
            assert (row["receiver"], row["source"]) == (RECEIVERS[row["ai_severity"]], "rules"), row
            assert row["ai_category"] != "-"
    assert {row["receiver"] for row in running.rows} == {"default", *RECEIVERS.values()}
    assert "11 of 12 notifications were routed by their ai_severity." in running.lines
    assert "\x1b" not in "".join(running.lines)


async def test_a_key_has_the_model_asked_and_ctrl_c_ends_everything(home):
    # Higher than any author and any rule put it.
    async with FakeProvider([verdict(severity="critical", category="security")]) as provider:
        async with demo(LLM_API_KEY="sk-made-up", LLM_BASE_URL=f"{provider.url}/v1") as running:
            await running.until(UP)
            await running.until(r"^BackupFailed")
            pages = [re.search(r"http://[^ ]+", line)[0] for line in running.lines[:3]]
            async with aiohttp.ClientSession() as client:
                for page in pages:
                    async with client.get(page) as answer:
                        assert answer.status == 200, page
            started = descendants(running.process.pid)
            begun = time.monotonic()
            running.process.send_signal(signal.SIGINT)
            assert await running.end() == 0, running.lines
            assert time.monotonic() - begun < 15
        assert provider.requests[0].key == "sk-made-up"
    assert any("classification.worker" in command for command in started.values()), started
    await all_gone(started, within=1)
    assert list(home.iterdir()) == []
    (row,) = (row for row in running.rows if row["alert"] == "BackupFailed")
    assert row | {"instance": ""} == {
        "alert": "BackupFailed",
        "severity": "-",
        "ai_severity": "critical",
        "ai_category": "security",
        "source": "llm",
        "receiver": "pager",
        "status": "firing",
        "instance": "",
    }


async def test_once_fails_when_nothing_is_labelled(home):
    said = []
    status = await play(
        once=True,
        model=None,
        stop=asyncio.Event(),
        say=said.append,
        proxy_flags=["--enrichment.mode=transparent"],
    )
    assert status == 1
    assert said[-1] == "0 of 12 notifications were routed by their ai_severity."
    assert descendants(os.getpid()) == {}


async def test_once_judges_what_has_come_when_time_is_up(home, monkeypatch):
    monkeypatch.setattr("proxy.demo.play.ONCE_WITHIN", 0.5)
    said = []
    assert await play(once=True, model=None, stop=asyncio.Event(), say=said.append) == 1
    assert said[-2:] == [
        f"Not seen in time: {', '.join(sorted(alertnames()))}.",
        "0 of 0 notifications were routed by their ai_severity.",
    ]
    assert descendants(os.getpid()) == {}
    assert list(home.iterdir()) == []


async def test_the_demo_ends_when_nobody_reads_it_any_more(home):
    shell = await asyncio.create_subprocess_exec(
        *("bash", "-c", f"set -o pipefail; exec 2>&1; {sys.executable} -m proxy demo | head -n 1"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await asyncio.wait_for(shell.communicate(), 30)
    assert shell.returncode == 0
    assert said.decode().splitlines()[1:] == []
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP], ids=lambda signum: signum.name)
async def test_a_signal_ends_everything(home, signum):
    async with demo() as running:
        await running.until(UP)
        started = descendants(running.process.pid)
        running.process.send_signal(signum)
        assert await asyncio.wait_for(running.end(), 15) == 0, running.lines
    assert len(started) == 3
    await all_gone(started, within=0)
    assert list(home.iterdir()) == []


async def test_a_signal_while_programs_start_ends_those_that_have(home):
    async with demo("--once") as running:
        async with asyncio.timeout(30):
            while not (started := descendants(running.process.pid)):
                await asyncio.sleep(0.01)
        running.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(running.end(), 15) == 1, running.lines
    await all_gone(started, within=0)
    assert list(home.iterdir()) == []


async def test_killing_the_demo_ends_everything_too(home):
    async with demo() as running:
        await running.until(UP)
        started = descendants(running.process.pid)
        running.process.kill()
        await running.end()
    assert len(started) == 3
    await all_gone(started, within=5)


@pytest.mark.parametrize("name", ["prometheus", "alertmanager", "proxy serve"])
async def test_a_program_that_dies_ends_the_demo(home, name):
    async with demo() as running:
        await running.until(UP)
        started = descendants(running.process.pid)
        (victim,) = (pid for pid, command in started.items() if command.split(" --")[0].endswith(name))
        os.kill(victim, signal.SIGKILL)
        assert await asyncio.wait_for(running.end(), 15) == 1, running.lines
    assert "ended by itself, by signal 9." in "\n".join(running.lines)
    await all_gone(started, within=0)
    assert list(home.iterdir()) == []


async def test_settings_that_are_wrong_are_quoted(home):
    async with demo("--once", LLM_API_KEY="sk-made-up", LLM_TIMEOUT="30x") as running:
        assert await running.end() == 1
    assert "LLM_TIMEOUT: bad duration '30x', want for example 30s" in "\n".join(running.lines)


async def test_what_is_not_installed_is_named(home, tmp_path):
    async with demo("--once", PATH=str(tmp_path)) as running:
        assert await running.end() == 1
    assert any(line.startswith("demo: not found on PATH") for line in running.lines)


@pytest.mark.proof
@pytest.mark.skipif(not shutil.which("npm"), reason="--model=local needs Node.js with npm")
async def test_the_local_model_gives_a_verdict_in_time(home):
    """Fetches 180 MB when they are not in the cache."""
    async with demo("--model=local") as running:
        row = await running.until(r" llm +(pager|ticket|chat|quiet) ")
        started = descendants(running.process.pid)
        assert any("model-server" in command for command in started.values()), started
        running.process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(running.end(), 15) == 0, running.lines
    assert row
    await all_gone(started, within=1)
    assert list(home.iterdir()) == []
