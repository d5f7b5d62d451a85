"""What happens to the file of the verdicts, and that none of it happens to the decisions beside it."""

import asyncio
import contextlib
import os
import sqlite3
import stat
import sys
import threading
from pathlib import Path

import pytest
from full_disk import small_files
from kept import an_identity, kept
from simulated import Time
from verdicts import InSqlite, a_class, a_record, a_verdict

from proxy.classification.stores import sqlite
from proxy.classification.stores.sqlite import SqliteVerdicts
from proxy.classification.verdicts import Cached
from proxy.decisions.stores.sqlite import SqliteStore
from proxy.errors import StoreError, StoreTimeout

A, B = a_class("A"), a_class("B")
DAY = 24 * 3600.0


@pytest.fixture
def clocks():
    return Time()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "verdicts.db"


@pytest.fixture
def inside(path):
    return InSqlite(path)


@pytest.fixture
def opened(path, clocks):
    """Return a function that opens a store on the file."""

    def open_(timeout: float = 5.0, **options) -> SqliteVerdicts:
        return SqliteVerdicts(
            path, timeout=timeout, now=lambda: clocks.now.timestamp(), monotonic=lambda: clocks.monotonic, **options
        )

    return open_


def classes(inside: InSqlite) -> set[bytes]:
    return {row[0] for row in inside.run("SELECT class FROM verdicts")}


async def test_the_next_process_finds_what_is_still_good(opened, clocks):
    async with opened() as store:
        await store.put({A: Cached(a_verdict(), DAY)})
        await store.put({B: Cached(a_verdict(), 3600)})
    clocks.passes(hours=1)
    async with opened() as store:
        found = await store.get([A, B])
        assert {key: (cached.classification, cached.left) for key, cached in found.items()} == {
            A: (a_verdict(), DAY - 3600)
        }


async def test_what_was_put_with_a_clock_years_ahead_is_absent_and_removed(opened, clocks, inside):
    async with opened() as store:
        clocks.passes(days=3 * 366)
        await store.put({A: Cached(a_verdict(), DAY)})
    clocks.passes(days=-3 * 366)
    clocks.monotonic = 1000.0
    async with opened() as store:
        assert dict(await store.get([A])) == {}
        await store.put({B: Cached(a_verdict(), DAY)})
        assert classes(inside) == {B}


async def test_nothing_is_opened_before_it_is_asked(opened, path):
    async with opened() as store:
        assert not path.exists()
        await store.get([A])
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_what_has_ended_is_removed_once_a_minute(opened, clocks, inside):
    async with opened() as store:
        await store.put({A: Cached(a_verdict(), 10)})
        for passes, there in ((15, {A, B}), (30, {A, B}), (20, {B})):
            clocks.passes(seconds=passes)
            await store.put({B: Cached(a_verdict(), DAY)})
            assert classes(inside) == there


async def test_beyond_the_capacity_the_oldest_go(opened, clocks, inside):
    async with opened(capacity=50) as store:
        for n in range(80):
            clocks.passes(seconds=0.1)
            await store.put({a_class(f"{n}"): Cached(a_verdict(), DAY)})
            assert len(classes(inside)) <= 50
        assert classes(inside) == {a_class(f"{n}") for n in range(30, 80)}


async def test_beyond_a_large_capacity_there_is_at_most_a_hundredth_more(opened, clocks, inside):
    async with opened(capacity=300) as store:
        most = 0
        for n in range(320):
            clocks.passes(seconds=0.1)
            await store.put({a_class(f"{n}"): Cached(a_verdict(), DAY)})
            most = max(most, len(classes(inside)))
        assert 300 < most <= 304


async def test_what_is_removed_is_removed_in_portions_one_after_the_other(opened, clocks, inside, monkeypatch):
    monkeypatch.setattr(sqlite, "AT_ONCE", 10)
    async with opened() as store:
        for n in range(25):
            await store.put({a_class(f"{n}"): Cached(a_verdict(), 5)})
        clocks.passes(seconds=100)
        for there in (16, 7, 3, 4):  # the one that is put is among them
            await store.put({a_class(f"after {there}"): Cached(a_verdict(), DAY)})
            assert len(classes(inside)) == there


async def test_what_is_beyond_the_capacity_goes_in_portions_too(opened, inside, monkeypatch):
    monkeypatch.setattr(sqlite, "AT_ONCE", 10)
    async with opened() as store:
        for n in range(35):
            await store.put({a_class(f"{n}"): Cached(a_verdict(), DAY)})
    async with opened(capacity=10) as store:
        for there in (26, 17, 10, 10):
            await store.put({a_class(f"after {there}"): Cached(a_verdict(), DAY)})
            assert len(classes(inside)) == there


@pytest.mark.parametrize(
    ("until", "record"),
    [
        pytest.param("for ever", a_record(), id="a text for a moment"),
        pytest.param(b"\x00", a_record(), id="bytes for a moment"),
        pytest.param(9e999, a_record(), id="a moment that never comes"),
        pytest.param(None, 42, id="a number for a record"),
        pytest.param(None, a_record().decode() + " " * 20_000, id="too long"),
    ],
)
async def test_a_row_of_somebody_else_is_absent_and_gives_way(opened, inside, until, record):
    async with opened() as store:
        await store.put({B: Cached(a_verdict(), DAY)})
        inside.run("INSERT INTO verdicts SELECT ?, ifnull(?, max(until)), ? FROM verdicts", A, until, record)
        assert set(await store.get([A, B])) == {B}
        await store.put({A: Cached(a_verdict(), DAY)})
        assert set(await store.get([A, B])) == {A, B}


async def test_a_text_that_is_no_text_is_absent(opened, inside):
    async with opened() as store:
        await store.put({B: Cached(a_verdict(), DAY)})
        inside.run("INSERT INTO verdicts SELECT ?, max(until), CAST(x'ff7b' AS TEXT) FROM verdicts", A)
        assert set(await store.get([A, B])) == {B}


async def test_a_damaged_file_is_begun_anew_and_one_wreck_kept(opened, path, clocks):
    for _ in range(2):
        async with opened() as store:
            await store.put({A: Cached(a_verdict(), DAY)})
        path.write_bytes(b"SQLite format 3\0" + b"\xff" * 8000)
        clocks.passes(minutes=1)
        async with opened() as store:
            assert dict(await store.get([A])) == {}
            await store.put({B: Cached(a_verdict(), DAY)})
            assert set(await store.get([A, B])) == {B}
    assert sorted(each.name for each in path.parent.iterdir()) == ["verdicts.db", "verdicts.db.corrupt"]


async def test_another_programs_database_is_left_alone(opened, path):
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE verdicts (ours TEXT)")
    before = path.read_bytes()
    async with opened() as store:
        for attempt in (store.get([A]), store.put({A: Cached(a_verdict(), DAY)})):
            with pytest.raises(StoreError, match="another program's database"):
                await attempt
    assert path.read_bytes() == before


async def test_the_decisions_file_is_not_taken_for_one_of_verdicts(tmp_path):
    path = tmp_path / "decisions.db"
    async with SqliteStore(path, timeout=5) as decisions, SqliteVerdicts(path, timeout=5) as store:
        await decisions.claim([kept("A")])
        with pytest.raises(StoreError, match="another program's database"):
            await store.put({A: Cached(a_verdict(), DAY)})
        assert set(await decisions.get([an_identity("A")])) == {an_identity("A")}


async def test_a_full_disk_is_an_error_that_costs_no_decision(opened, tmp_path):
    async with opened() as store, SqliteStore(tmp_path / "decisions.db", timeout=5) as decisions:
        await decisions.claim([kept("A")])
        await store.put({A: Cached(a_verdict(), DAY)})
        novel = a_verdict(recommendations=tuple("x" * 120 for _ in range(3)))
        # One disk for both. What is left of it, the decisions' file still fits into.
        with small_files(200_000):
            asked = (store.put({a_class(f"{n}"): Cached(novel, DAY)}) for n in range(400))
            failed = [exc for exc in await asyncio.gather(*asked, return_exceptions=True) if exc]
            assert {type(exc) for exc in failed} == {StoreError}
            assert "full" in str(failed[-1]) or "I/O" in str(failed[-1])
            assert set(await decisions.claim([kept("B")])) == {an_identity("B")}
        assert set(await store.get([A])) == {A}
        await store.put({B: Cached(a_verdict(), DAY)})
        assert set(await store.get([A, B])) == {A, B}


async def test_a_disk_that_hangs_over_verdicts_is_an_error_soon_and_holds_no_decision_up(opened, tmp_path, monkeypatch):
    goes_on = threading.Event()
    async with opened(0.1) as store, SqliteStore(tmp_path / "decisions.db", timeout=5) as decisions:
        await store.put({B: Cached(a_verdict(), DAY)})
        with monkeypatch.context() as patch:
            patch.setattr(store._file, "now", lambda: goes_on.wait() and 0.0)
            for attempt in (store.get([B]), store.put({A: Cached(a_verdict(), DAY)})):
                with pytest.raises(StoreTimeout, match=r"verdicts\.db: the disk does not answer within 0\.1 s"):
                    await attempt
            assert set(await decisions.claim([kept("A")])) == {an_identity("A")}
            goes_on.set()
            await asyncio.sleep(0.05)
        assert set(await store.get([A, B])) == {B}


WRITER = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from verdicts import a_class, a_verdict
from proxy.classification.stores.sqlite import SqliteVerdicts
from proxy.classification.verdicts import Cached

async def main():
    async with SqliteVerdicts(Path(sys.argv[1]), timeout=5) as store:
        for n in range(200):
            await store.put({a_class(f"theirs {n}"): Cached(a_verdict(), 3600)})
            if n == 20:
                print(n, flush=True)

asyncio.run(main())
"""


async def test_two_processes_on_one_file_leave_each_others_verdicts_alone(path):
    other = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITER, str(path), str(Path(__file__).parents[1]), stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert other.stdout
    await other.stdout.readline()
    async with SqliteVerdicts(path, timeout=5) as store:
        for n in range(200):
            await store.put({a_class(f"ours {n}"): Cached(a_verdict(), 3600)})
        assert await other.wait() == 0
        assert (
            len(await store.get([a_class(f"{whose} {n}") for whose in ("ours", "theirs") for n in range(200)])) == 400
        )
