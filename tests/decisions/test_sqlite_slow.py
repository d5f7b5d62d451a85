"""What happens to the decisions on a disk that is slow, or hangs."""

import asyncio
import contextlib
import sqlite3
import sys
import threading
from functools import partial

import pytest
from kept import an_identity, kept, loaded

from proxy.decisions.stores import sqlite
from proxy.decisions.stores.sqlite import SqliteStore
from proxy.errors import StoreTimeout

A, B = an_identity("A"), an_identity("B")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "decisions.db"


async def test_what_a_slow_disk_had_not_begun_to_commit_in_time_it_never_does(path, monkeypatch):
    async with SqliteStore(path, timeout=5.0) as store:
        await store.claim([kept("B")])
        monkeypatch.setattr(store._worker, "_timeout", 0.1)
        goes_on = threading.Event()
        held = store._file._held

        def slowly(*args):
            goes_on.wait()
            return held(*args)

        with monkeypatch.context() as patch:
            patch.setattr(store._file, "_held", slowly)
            # The first one is at work, the others wait for their turn.
            for attempt in (store.claim([kept("A")]), store.claim([kept("A")]), store.forget([B])):
                with pytest.raises(StoreTimeout, match="does not answer"):
                    await attempt
            goes_on.set()
        monkeypatch.setattr(store._worker, "_timeout", 5.0)
        assert set(await store.get([A, B])) == {B}, "after all that was asked before"


@pytest.fixture
def committing(monkeypatch):
    """Return an event without which no COMMIT ends."""
    goes_on = threading.Event()
    goes_on.set()

    class Slow(sqlite3.Connection):
        def execute(self, statement, *values):
            if statement == "COMMIT":
                goes_on.wait(20)
            return super().execute(statement, *values)

    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Slow))
    return goes_on


@pytest.mark.parametrize("patient", [False, True])
async def test_what_a_slow_disk_is_committing_is_waited_for(path, committing, monkeypatch, patient):
    """Refused it would be carried out all the same."""
    async with SqliteStore(path, timeout=5.0) as store:
        await store.beat("me", "")
        committing.clear()
        with monkeypatch.context() as patch:
            patch.setattr(store._worker, "_timeout", 0.1)
            patch.setattr(sqlite, "_PATIENCE", 0.1)
            claiming = asyncio.create_task(store.claim([kept("A")], patient=patient))
            await asyncio.sleep(0.5)
            assert not claiming.done()
        committing.set()
        assert set(await claiming) == set(await loaded(store)) == {A}


async def test_a_beat_tells_in_time_that_the_disk_hangs_whatever_it_is_at(path, committing, monkeypatch):
    async with SqliteStore(path, timeout=5.0) as store:
        await store.beat("me", "")
        monkeypatch.setattr(store._worker, "_timeout", 0.1)
        committing.clear()
        for _ in range(2):
            with pytest.raises(StoreTimeout, match="does not answer"):
                await store.beat("me", "")
        committing.set()


HANGING = """
import asyncio, sys, threading, time
from pathlib import Path
from proxy.decisions.stores import sqlite
from proxy.errors import StoreTimeout

async def main():
    async with sqlite.SqliteStore(Path(sys.argv[1]), timeout=5.0) as store:
        await store.beat("me", "")
        store._timeout = 0.1
        store._file._held = lambda *args: time.sleep(3600)
        try:
            await store.claim([sqlite.Kept(sqlite.Decision(b"x" * 16), 1, 3600.0)])
        except StoreTimeout:
            print("hangs", flush=True)
    print("closed", *(thread.name for thread in threading.enumerate()), flush=True)

asyncio.run(main())
"""


async def test_a_disk_that_hangs_for_ever_keeps_no_process_from_ending(path):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HANGING, str(path), stdout=asyncio.subprocess.PIPE
    )
    try:
        said, _ = await asyncio.wait_for(process.communicate(), 8)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    assert (process.returncode, said.split(b"\n")) == (0, [b"hangs", b"closed MainThread sqlite", b""])


async def test_closing_closes_the_file_and_ends_the_thread(path):
    async with SqliteStore(path, timeout=5.0) as store:
        await store.claim([kept("A")])
        assert "sqlite" in {thread.name for thread in threading.enumerate()}
    assert store._file._db is None
    async with asyncio.timeout(5):
        while "sqlite" in {thread.name for thread in threading.enumerate()}:
            await asyncio.sleep(0.01)
