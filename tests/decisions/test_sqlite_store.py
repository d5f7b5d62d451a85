"""What happens to the file of the decisions."""

import asyncio
import contextlib
import os
import signal
import sqlite3
import stat
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
from full_disk import small_files
from kept import an_identity, bare, kept, loaded
from simulated import Time

from proxy.decisions.stores import sqlite
from proxy.decisions.stores.sqlite import SqliteStore
from proxy.errors import StoreError

A, B = an_identity("A"), an_identity("B")
HOUR, WEEK = 3600.0, 7 * 24 * 3600.0


@pytest.fixture
def clocks():
    return Time()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "decisions.db"


@pytest.fixture
def opened(path, clocks):
    """Return a function that opens a store on the file."""

    def open_(timeout: float = 5.0) -> SqliteStore:
        return SqliteStore(
            path, timeout=timeout, now=lambda: clocks.now.timestamp(), monotonic=lambda: clocks.monotonic
        )

    return open_


# The next start


async def test_the_next_start_finds_everything(opened):
    everything = [kept(f"{n}", life=n + 1, left=2 * HOUR) for n in range(300)]
    async with opened() as store:
        await store.claim(everything)
        await store.write_state("enriched")
        before = await store.beat("me", "")
    async with opened() as store:
        assert await store.beat("me", "") == before
        found = await loaded(store)
        assert bare(found.values()) == bare(everything)
        assert {k.left for k in found.values()} == {2 * HOUR}
        assert bare((await store.claim([kept("1", "info", life=9)])).values()) == bare([everything[1]])


@pytest.mark.parametrize(
    ("away", "left"), [(0, 2 * HOUR), (HOUR, HOUR), (2 * HOUR - 60, 600), (10 * WEEK, 600), (-WEEK * 52, WEEK)]
)
async def test_whatever_the_clock_did_meanwhile_no_decision_has_ended(opened, clocks, away, left):
    async with opened() as store:
        await store.claim([kept("A", "critical", left=2 * HOUR)])
    clocks.now += timedelta(seconds=away)
    async with opened() as store:
        assert (await loaded(store))[A].left == left
        assert (await store.get([A]))[A].left == left
        assert bare((await store.claim([kept("A", "info", life=2)])).values()) == bare([kept("A", "critical")])


async def test_a_jump_of_the_wall_clock_ends_no_decision(opened, clocks):
    async with opened() as store:
        await store.claim([kept("A", "critical", left=HOUR)])
        clocks.now += timedelta(seconds=WEEK)
        clocks.passes(seconds=60)
        await store.beat("me", "")
        assert (await store.get([A]))[A].left == pytest.approx(HOUR - 60)


async def test_what_has_ended_is_removed(opened, clocks, path):
    async with opened() as store:
        await store.claim([kept("A", left=HOUR), kept("B", left=3 * HOUR)])
    clocks.passes(seconds=2 * HOUR)
    async with opened() as store:
        for passes, names in ((0, {A, B}), (590, {A, B}), (20, {B})):
            clocks.passes(seconds=passes)
            await store.beat("me", "")
            with contextlib.closing(sqlite3.connect(path)) as db:
                assert {row[0] for row in db.execute("SELECT identity FROM decisions")} == names


async def test_a_hundred_thousand_decisions_are_loaded_while_others_work(opened, path):
    async with opened(30) as store:
        await store.claim([kept("A")])
        with contextlib.closing(sqlite3.connect(path)) as db, db:
            db.execute(
                "WITH RECURSIVE n (n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM n LIMIT 99999)"
                " INSERT INTO decisions SELECT randomblob(16), n, json_object('ai_severity', 'of ' || (n % 3)),"
                " annotations, until, NULL, fires_until, original FROM n, decisions"
            )
        turns = found = 0

        async def work():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        working = asyncio.create_task(work())
        texts = set()
        async for slice_ in store.load():
            assert len(slice_) <= 1000
            found += len(slice_)
            texts |= {id(k.decision.labels) for k in slice_} | {id(k.decision.annotations) for k in slice_}
            await store.get([A])
        working.cancel()
    assert found == 100_000
    assert len(texts) == 5
    assert turns > 100


# The file


async def test_only_its_owner_reads_the_file(opened, path):
    path.touch(0o644)
    async with opened() as store:
        await store.claim([kept()])
        files = sorted(path.parent.glob("decisions.db*"))
        assert len(files) == 3
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


async def test_a_file_that_was_deleted_is_begun_anew(opened, path):
    async with opened() as store:
        before = await store.beat("me", "")
        await store.claim([kept("A")])
        path.unlink()
        after = await store.beat("me", "")
        assert after.generations != before.generations
        assert dict(await store.get([A])) == {}
        await store.claim([kept("B")])
        path.unlink()
        await store.claim([kept("A")])
        assert (await store.beat("me", "")).generations not in (before.generations, after.generations)
    async with opened() as store:
        assert set(await loaded(store)) == {A}


async def test_a_file_that_was_put_in_its_place_is_taken(opened, path):
    async with opened() as store:
        await store.claim([kept("A")])
        backup = await store.beat("me", "")
    path.rename(path.with_name("backup"))
    async with opened() as store:
        await store.claim([kept("B")])
        path.with_name("backup").rename(path)
        assert await store.beat("me", "") == backup
        assert set(await loaded(store)) == {A}


@pytest.mark.parametrize("damage", ["garbage", "a page", "the head", "a long text"])
async def test_a_corrupted_file_is_moved_aside(opened, path, clocks, damage):
    async with opened() as store:
        before = await store.beat("me", "")
        await store.claim([kept(f"{n}", life=n + 1) for n in range(300)])
        await store.claim([kept("A", original="x" * 100_000)])
    whole = path.read_bytes()
    broken = {
        "garbage": b"no database" * 1000,
        "a page": whole[:8192] + b"\xff" * 4096 + whole[12288:],
        "the head": b"\0" * 100 + whole[100:],
        # Not read when the file is opened.
        "a long text": whole[:-50_000] + b"\xff" * 50_000,
    }[damage]
    path.write_bytes(broken)
    async with opened() as store:
        with contextlib.suppress(StoreError):  # noticed when it is opened, or when the page is read
            await loaded(store)
        assert await loaded(store) == {}
        assert (await store.beat("me", "")).generations != before.generations
        await store.claim([kept("A")])
    assert path.with_name(f"decisions.db.corrupt-{int(clocks.now.timestamp())}").read_bytes() == broken
    async with opened() as store:
        assert set(await loaded(store)) == {A}


async def test_a_row_that_somebody_else_wrote_is_not_there(opened, path):
    async with opened() as store:
        await store.claim([kept("A"), kept("B")])
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE decisions SET labels = '[]' WHERE identity = ?", (A,))
    async with opened() as store:
        assert set(await loaded(store)) == {B}
        assert set(await store.get([A, B])) == {B}
        assert (await store.claim([kept("A", "info", life=7)]))[A].life == 7


async def test_a_file_of_a_newer_version_is_left_alone(opened, path):
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE better (x)")
        db.execute("PRAGMA user_version = 99")
        db.execute(f"PRAGMA application_id = {sqlite._APPLICATION}")
    async with opened() as store:
        with pytest.raises(StoreError, match="newer version"):
            await store.claim([kept("A")])
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT name FROM sqlite_master").fetchall() == [("better",)]


async def test_another_programs_database_is_left_alone(opened, path):
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE theirs (x)")
    async with opened() as store:
        with pytest.raises(StoreError, match="another program's database"):
            await store.claim([kept("A")])
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT name FROM sqlite_master").fetchall() == [("theirs",)]


async def test_a_slip_in_the_url_costs_nobodys_file(tmp_path):
    theirs = tmp_path / "passwd"
    theirs.write_text("root:x:0:0:root:/root:/bin/bash\n")
    theirs.chmod(0o644)
    async with SqliteStore(theirs) as store:
        with pytest.raises(StoreError, match="no file of decisions; name another one"):
            await store.claim([kept("A")])
    assert theirs.read_text().startswith("root:x:0")
    assert stat.S_IMODE(theirs.stat().st_mode) == 0o644
    assert sorted(tmp_path.iterdir()) == [theirs]


# Failures


async def test_a_place_that_cannot_be_written_is_an_error_until_it_can(tmp_path, clocks):
    (tmp_path / "data").write_text("a file where the directory should be")
    path = tmp_path / "data" / "decisions.db"
    async with SqliteStore(path, monotonic=lambda: clocks.monotonic) as store:
        for attempt in (store.get([A]), store.claim([kept("A")]), store.beat("me", ""), store.forget([A])):
            with pytest.raises(StoreError, match=f"{path}: "):
                await attempt
        with pytest.raises(StoreError):
            await loaded(store)
        (tmp_path / "data").unlink()
        with pytest.raises(StoreError):  # not tried again so soon
            await store.get([A])
        clocks.passes(seconds=1)
        assert set(await store.claim([kept("A")])) == {A}


async def test_a_directory_in_the_place_of_the_file_is_an_error(opened, path):
    path.mkdir()
    async with opened() as store:
        with pytest.raises(StoreError, match="directory"):
            await store.claim([kept("A")])


async def test_a_full_disk_is_an_error_and_can_still_be_read(opened):
    async with opened() as store:
        await store.claim([kept("A")])
        with small_files(64_000), pytest.raises(StoreError, match=r"full|I/O"):
            await store.claim([kept(f"{n}", texts={"ai_summary": "x" * 500}) for n in range(1000)])
        assert set(await loaded(store)) == {A}
        assert len(await store.claim([kept(f"{n}") for n in range(1000)])) == 1000
        assert len(await loaded(store)) == 1001


async def test_on_a_full_disk_no_decision_has_ended_either(opened, clocks):
    async with opened() as store:
        await store.claim([kept(f"{n}") for n in range(300)])
    clocks.passes(seconds=WEEK)
    async with opened() as store:
        with small_files(33_000):  # room to read, and not to write
            assert {k.left for k in (await loaded(store)).values()} == {600}


async def test_a_start_on_a_full_disk_is_an_error_until_there_is_room(opened, clocks):
    async with opened() as store:
        with small_files(0), pytest.raises(StoreError):
            await store.claim([kept("A")])
        clocks.passes(seconds=1)
        assert set(await store.claim([kept("A")])) == {A}


async def test_two_on_one_file_see_the_same(opened):
    async with opened() as one, opened() as other:
        await one.claim([kept("A", "critical")])
        assert bare((await other.claim([kept("A", "info", life=2)])).values()) == bare([kept("A", "critical")])
        batches = [[kept(f"{n}", f"of-{p}", life=p + 1) for n in range(256)] for p in range(2)]
        held = await asyncio.gather(*(s.claim(b) for s, b in zip((one, other), batches, strict=True)))
        assert bare(held[0].values()) == bare(held[1].values())


async def test_a_file_that_another_program_locks_is_an_error_soon(opened, path):
    async with opened() as store:
        await store.claim([kept("A")])
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("BEGIN IMMEDIATE")
            begun = time.monotonic()
            with pytest.raises(StoreError, match="locked"):
                await store.claim([kept("B")])
            assert time.monotonic() - begun < 1
            assert set(await store.get([A, B])) == {A}
            db.execute("ROLLBACK")
        assert set(await store.claim([kept("B")])) == {B}


WRITER = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from kept import kept
from proxy.decisions.stores.sqlite import SqliteStore

async def main():
    async with SqliteStore(Path(sys.argv[1])) as store:
        for n in range(100_000):
            await store.claim([kept(f"{n}-{m}", life=n + 1) for m in range(20)])
            print(n, flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("batches", [1, 40])
async def test_a_kill_in_the_middle_loses_nothing_that_was_claimed(path, batches):
    writer = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITER, str(path), str(Path(__file__).parents[1]), stdout=asyncio.subprocess.PIPE
    )
    assert writer.stdout
    for _ in range(batches):
        last = int(await writer.stdout.readline())
    os.kill(writer.pid, signal.SIGKILL)
    rest = (await writer.stdout.read()).split()
    await writer.wait()
    last = int(rest[-1]) if rest else last
    async with SqliteStore(path) as store:
        found = {k.life for k in (await loaded(store)).values()}
        # All that was answered, and of what was not, all or nothing.
        assert set(range(1, last + 2)) <= found <= set(range(1, last + 3))
        assert len(await loaded(store)) == 20 * len(found)
