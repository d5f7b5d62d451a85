"""What may befall the proxy itself: it stands still, its disk, its clock, its file descriptors."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from alone import set_clock
from faults.injector import Fault
from faults.station import Station, station
from real import ROOT, metric

CLOCK = Path(__file__).parents[1] / "clock"
DESCRIPTORS = 12
"""More than the proxy has open, when its limit is lowered: as many senders can still connect."""


async def a_frozen_proxy(binary: str, directory: Path) -> None:
    """SIGSTOP, as on a machine that is paused: what was sent meanwhile is answered when it goes on."""
    async with station(binary, directory) as run:
        run.proxy.freeze()
        waiting = asyncio.create_task(run.post("Frozen"))
        await asyncio.sleep(1.5)
        assert not waiting.done()
        run.proxy.thaw()
        answered = await waiting
        assert answered.status == 200
        await run.holds_once("Frozen", answered)

        # In the midst: Alertmanager has answered, and nobody reads it for longer than it may take.
        run.between.break_next(Fault.DELAY, 0.5)
        waiting = asyncio.create_task(run.post("Midst"))
        await asyncio.sleep(0.2)
        run.proxy.freeze()
        await asyncio.sleep(1.5)
        run.proxy.thaw()
        answered = await waiting
        assert answered.status == 200
        await run.holds_once("Midst", answered)
        await run.fine()
        await run.one_identity_each()


async def goes_on(run: Station) -> None:
    """Assert that the store is away and that alerts are none the worse for it."""
    names = [f"Unkept{n}" for n in range(3)]
    for _ in range(2):
        for name in names:
            answered = await run.post(name)
            assert answered.status == 200
            await run.holds_once(name, answered)
    assert run.proxy.process.returncode is None


async def store_up(run: Station, up: bool) -> None:
    async with asyncio.timeout(20):
        while await metric(run.proxy.admin, "aiproxy_store_up") != up:
            await run.fine()
            await asyncio.sleep(0.2)


@contextmanager
def small_disk(at: Path) -> Iterator[None]:
    """Mount a file system of 256 KiB."""
    if os.geteuid() or not shutil.which("mount"):
        pytest.skip("a small file system is mounted by root alone")
    at.mkdir(parents=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(at)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(at)], check=True)


@asynccontextmanager
async def on_a_small_disk(
    binary: str, directory: Path, *, read_only: bool = False
) -> AsyncIterator[tuple[Station, Path]]:
    disk = directory / "disk"
    async with AsyncExitStack() as stack:
        stack.enter_context(small_disk(disk))
        if read_only:
            remount(disk, "ro")
        yield await stack.enter_async_context(station(binary, directory, f"--storage.path={disk}")), disk


async def a_full_disk(binary: str, directory: Path) -> None:
    async with on_a_small_disk(binary, directory) as (run, disk):
        ballast = disk / "ballast"
        with ballast.open("wb", buffering=0) as out, contextlib.suppress(OSError):
            while True:
                out.write(bytes(4096))
        await store_up(run, False)
        await goes_on(run)
        ballast.unlink()
        await store_up(run, True)
        await goes_on(run)
        await run.one_identity_each()


async def a_read_only_disk(binary: str, directory: Path) -> None:
    """From the start, as the kernel lets nobody make a file system read-only whose files are open; writable later."""
    async with on_a_small_disk(binary, directory, read_only=True) as (run, disk):
        await store_up(run, False)
        await goes_on(run)
        remount(disk, "rw")
        await store_up(run, True)
        await goes_on(run)
        await run.one_identity_each()


def remount(disk: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(disk)], check=True)


async def a_storage_path_that_is_removed(binary: str, directory: Path) -> None:
    async with station(binary, directory) as run:
        await run.fine()
        storage = run.proxy.home / "data"
        shutil.rmtree(storage)
        await goes_on(run)
        async with asyncio.timeout(20):
            while not storage.joinpath("decisions.db").exists():
                await asyncio.sleep(0.2)
        await run.proxy.kill()
        await run.proxy.start()
        await goes_on(run)
        await run.one_identity_each()


async def a_clock_that_jumps_while_alertmanager_answers(binary: str, directory: Path) -> None:
    """By hours, either way, between a POST and its answer: timeouts and retries go by another clock."""
    file = directory / "offset"
    set_clock(file, 0)
    env = {"PYTHONPATH": f"{CLOCK}:{ROOT}", "CLOCK_OFFSET": str(file)}
    async with station(binary, directory, env=env) as run:
        answered = await run.post("Known")
        await run.holds_once("Known", answered)
        for offset in (5400, -5400, 0):
            run.between.break_next(Fault.DELAY, 0.6)
            waiting = asyncio.create_task(run.post("Known"))
            await asyncio.sleep(0.3)
            set_clock(file, offset)
            answered = await waiting
            assert answered.status == 200
            assert 0.5 < answered.seconds < 5
            await run.holds_once("Known", answered)
            # While it is being tried again.
            await run.between.refuse()
            waiting = asyncio.create_task(run.post("Known"))
            await asyncio.sleep(0.2)
            set_clock(file, -offset)
            await asyncio.sleep(0.2)
            await run.between.open()
            answered = await waiting
            assert answered.status == 200
            await run.holds_once("Known", answered)
        set_clock(file, 0)
        await run.fine()
        await run.one_identity_each()


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


async def no_file_descriptors(binary: str, directory: Path) -> None:
    """Connections that come are not taken in; the ones that are there go on, and all is well when some have gone."""
    async with station(binary, directory) as run:
        pid = run.proxy.process.pid
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        used = descriptors(pid)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + DESCRIPTORS, before[1]))
        idle = [await asyncio.open_connection(*run.proxy.target.split(":")) for _ in range(3 * DESCRIPTORS)]
        await asyncio.sleep(0.5)
        assert descriptors(pid) == used + DESCRIPTORS, "they are exhausted"
        for n in range(5):
            answered = await run.post(f"Starved{n}")
            assert answered.status == 200
            await run.holds_once(f"Starved{n}", answered)
        # The connections to Alertmanager are gone, and none can be opened: 502, and the process lives.
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (1, before[1]))
        await run.between.refuse()
        await run.between.open()
        assert (await run.post("Starved1")).status == 502
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + DESCRIPTORS, before[1]))
        for _, writer in idle:
            writer.transport.abort()
        async with asyncio.timeout(20):
            while (await run.post("Starved1")).status != 200:
                await asyncio.sleep(0.2)
        await run.fine()
        assert run.proxy.process.returncode is None
        await run.one_identity_each()


MACHINE = {
    "the proxy frozen": a_frozen_proxy,
    "its disk full": a_full_disk,
    "its disk read-only": a_read_only_disk,
    "its storage removed": a_storage_path_that_is_removed,
    "its clock jumps between a POST and its answer": a_clock_that_jumps_while_alertmanager_answers,
    "its file descriptors exhausted": no_file_descriptors,
}
