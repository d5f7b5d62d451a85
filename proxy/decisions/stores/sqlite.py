"""`sqlite:PATH`: decisions outlive the process, in a file of its own."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Final, Self, TypeVar

import structlog

from proxy.alert import Identity, LabelSet
from proxy.decisions.decision import Decision
from proxy.decisions.store import Beat, Change, Kept
from proxy.decisions.stores.claims import AT_MOST, SLICE, read, settle, written
from proxy.decisions.stores.thread import DaemonThread
from proxy.errors import StoreError, StoreTimeout

log = structlog.get_logger(__name__)

T = TypeVar("T")

NAME: Final = "decisions.db"
"""Of the file, where no other is named."""
AT_LEAST: Final = 600.0
"""Seconds that a loaded decision lives, whatever the clock did while no proxy ran: alerts that fire come again."""
TRY_AGAIN: Final = 1.0
"""Seconds between two tries to open a file that could not be opened."""
SWEEP: Final = 60.0
"""Seconds between two times that what has ended is removed."""
_HEADER: Final = b"SQLite format 3\0"
_APPLICATION: Final = 0x41415031
"""What this program's files say of themselves: AAP1."""
_LOCKED: Final = 0.1
"""Seconds that another program may hold the file."""
_PATIENCE: Final = 10.0
"""Seconds for a slice of a load, and for a patient claim: neither holds an alert up."""
_CLOSING: Final = 1.0
"""Seconds for closing. It is on the way of SIGTERM, and whatever was answered is safe without it."""

# Each takes a file from one version to the next; PRAGMA user_version says which one it has.
_MIGRATIONS: Final = (
    """
    CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE decisions (
        identity BLOB PRIMARY KEY,
        life INTEGER NOT NULL,
        labels TEXT NOT NULL,
        annotations TEXT NOT NULL,
        until REAL NOT NULL, -- seconds since 1970
        resolved_at REAL,
        fires_until REAL,
        original TEXT NOT NULL
    ) WITHOUT ROWID
    """,
)
_COLUMNS: Final = "identity, life, labels, annotations, until, resolved_at, fires_until, original"
_GONE_BAD: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_PASSES: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL})
"""After these the connection is as good as before."""

_read = functools.lru_cache(maxsize=1024)(read)
"""Alerts of a class have the same texts: those of the decisions that live are in memory once."""


class SqliteStore:
    """A DecisionStore for one proxy alone. `async with` closes it.

    Entering it does not fail: while the file cannot be used, each operation raises StoreError and says why.
    """

    kind: ClassVar[str] = "sqlite"
    shared: ClassVar[bool] = False

    def __init__(
        self,
        path: Path,
        *,
        timeout: float = 0.5,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._timeout = timeout
        self._file = _File(path, now=now, monotonic=monotonic)
        # All of SQLite in one thread: it may wait for a disk, and the event loop may not.
        self._thread = DaemonThread("sqlite")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        closed = asyncio.get_running_loop().run_in_executor(self._thread, self._file.end)
        closed.add_done_callback(_heard)
        self._thread.shutdown()
        await asyncio.wait({closed}, timeout=_CLOSING)

    async def load(self) -> AsyncIterator[Sequence[Kept]]:
        texts = functools.cache(read)
        after: bytes | None = b""
        while after is not None:
            kept, after = await self._do(partial(self._file.slice, after, texts), _PATIENCE)
            yield kept

    async def get(self, identities: Collection[Identity]) -> Mapping[Identity, Kept]:
        return await self._do(partial(self._file.get, identities))

    async def claim(self, new: Sequence[Kept], *, patient: bool = False) -> Mapping[Identity, Kept]:
        return await self._do(partial(self._file.claim, new), _PATIENCE if patient else None)

    async def forget(self, identities: Collection[Identity]) -> None:
        await self._do(partial(self._file.forget, identities))

    async def beat(self, name: str, me: str) -> Beat:
        # What a beat removes late does no harm; and it has to tell in time that the disk hangs.
        generation, state = await self._do(self._file.beat, may_be_late=True)
        return Beat({"": generation}, state, {name: me})

    async def write_state(self, state: str) -> None:
        await self._do(partial(self._file.write, "state", state))

    async def changes(self) -> AsyncGenerator[Change, None]:
        await asyncio.Event().wait()  # there is nobody else
        yield Change()

    async def _do(self, work: Callable[[_Call], T], within: float | None = None, *, may_be_late: bool = False) -> T:
        """Have it done `within` seconds, or raise StoreTimeout; then it never is, unless it `may_be_late`."""
        within = within or self._timeout
        call = _Call()
        done = asyncio.get_running_loop().run_in_executor(self._thread, call.run, work)
        try:
            finished, _ = await asyncio.wait({done}, timeout=within)
            if not finished and not call.give_up() and not may_be_late:
                # It just is carried out, however long the disk takes for that. No alert waits for SQLite.
                finished, _ = await asyncio.wait({done})
        except asyncio.CancelledError:
            call.give_up()
            done.add_done_callback(_heard)
            raise
        if not finished:
            done.add_done_callback(_heard)
            raise StoreTimeout(f"{self._file.path}: the disk does not answer within {within:g} s")
        return done.result()


def _heard(done: asyncio.Future[Any]) -> None:
    """Take note of an error that nobody waits for any more."""
    if not done.cancelled():
        done.exception()


class _Call:
    """One operation, which is either carried out or given up: never carried out after it was given up."""

    def __init__(self) -> None:
        self._carrying_out = threading.Lock()
        self._given_up = False

    def run(self, work: Callable[[_Call], T]) -> T:
        """In the thread: do it, unless it was given up while it waited for its turn."""
        if self._given_up:
            raise StoreError("given up")
        return work(self)

    def commit(self, db: sqlite3.Connection) -> None:
        """In the thread: carry it out."""
        with self._carrying_out:
            if self._given_up:
                raise StoreError("given up")
            db.execute("COMMIT")

    def give_up(self) -> bool:
        """In the event loop: return whether it will not be carried out. False: it just is, wait."""
        if not self._carrying_out.acquire(blocking=False):
            return False
        self._given_up = True
        self._carrying_out.release()
        return True


class _File:
    """The database, for the one thread that works on it."""

    def __init__(self, path: Path, *, now: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self.path = path
        self._wall = now
        self._monotonic = monotonic
        self._db: sqlite3.Connection | None = None
        self._wal = Path(f"{path}-wal")
        self._inode: tuple[int, int] | None = None
        self._wal_inode: tuple[int, int] | None = None
        self._generation = ""
        self._opened_at = (0.0, 0.0)
        self._try_at = -1.0
        self._why = ""
        self._sweep_at = 0.0

    # Operations

    def slice(self, after: bytes, texts: Callable[[str], LabelSet], _: _Call) -> tuple[list[Kept], bytes | None]:
        """Return the decisions that come next, and the last identity of them; None: there are no more."""
        with self._used() as db:
            rows = db.execute(
                f"SELECT {_COLUMNS} FROM decisions WHERE identity > ? ORDER BY identity LIMIT {SLICE}",  # noqa: S608
                (after,),
            ).fetchall()
            now = self._now()
            kept = [_kept(row, max(row[4] - now, AT_LEAST), texts) for row in rows]
            return [k for k in kept if k], rows[-1][0] if len(rows) == SLICE else None

    def get(self, identities: Iterable[Identity], _: _Call) -> dict[Identity, Kept]:
        with self._used() as db:
            now = self._now()
            return {i: kept for i in identities if (kept := self._held(db, i, now))}

    def claim(self, new: Sequence[Kept], call: _Call) -> dict[Identity, Kept]:
        held = {}
        with self._written(call) as db:
            now = self._now()
            for kept in new:
                identity = kept.decision.identity
                before = self._held(db, identity, now)
                holds = held[identity] = settle(before, kept, shared=False)
                if holds is not before:
                    db.execute(
                        f"REPLACE INTO decisions ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
                        _row(holds, now),
                    )
        return held

    def forget(self, identities: Iterable[Identity], call: _Call) -> None:
        with self._written(call) as db:
            db.executemany("DELETE FROM decisions WHERE identity = ?", [(i,) for i in identities])

    def beat(self, call: _Call) -> tuple[str, str | None]:
        with self._written(call) as db:
            if self._monotonic() >= self._sweep_at:
                db.execute("DELETE FROM decisions WHERE until <= ?", (self._now(),))
                self._sweep_at = self._monotonic() + SWEEP
            state = db.execute("SELECT value FROM meta WHERE name = 'state'").fetchone()
        return self._generation, state[0] if state else None

    def write(self, name: str, value: str, call: _Call) -> None:
        with self._written(call) as db:
            db.execute("REPLACE INTO meta VALUES (?, ?)", (name, value))

    def end(self) -> None:
        self._close()

    # The connection

    def _close(self) -> None:
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    @contextlib.contextmanager
    def _written(self, call: _Call) -> Iterator[sqlite3.Connection]:
        with self._used(anew=self._was_replaced()) as db:
            db.execute("BEGIN IMMEDIATE")
            yield db
            call.commit(db)

    @contextlib.contextmanager
    def _used(self, *, anew: bool = False) -> Iterator[sqlite3.Connection]:
        if anew:
            log.error("the decisions' file was removed or replaced, opening it anew", path=str(self.path))
            self._leave()
        db = self._db or self._open()
        try:
            yield db
        except sqlite3.Error as exc:
            code = _code(exc)
            if code in _GONE_BAD:
                self._move_aside(exc)
            elif code not in _PASSES:
                self._close()
            raise self._error(exc) from exc
        finally:
            if self._db is db and db.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    db.execute("ROLLBACK")

    def _was_replaced(self) -> bool:
        return self._db is not None and _inode(self.path) != self._inode

    def _leave(self) -> None:
        """Close a file that is no longer where it was. SQLite leaves its -wal behind, and would add it to the next."""
        self._close()
        if _inode(self._wal) == self._wal_inode:
            for suffix in ("-wal", "-shm"):
                with contextlib.suppress(OSError):
                    Path(f"{self.path}{suffix}").unlink()

    def _open(self) -> sqlite3.Connection:
        if self._monotonic() < self._try_at:
            raise StoreError(self._why)
        try:
            try:
                return self._begin()
            except sqlite3.Error as exc:
                if _code(exc) not in _GONE_BAD:
                    raise
                self._move_aside(exc)
                return self._begin()
        except (sqlite3.Error, OSError, StoreError) as exc:
            self._close()
            error = exc if isinstance(exc, StoreError) else self._error(exc)
            self._try_at, self._why = self._monotonic() + TRY_AGAIN, str(error)
            raise error from exc

    def _begin(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Made by us and not by SQLite, which would let everybody read what fires here.
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            begins = os.read(handle, len(_HEADER))
            if not begins:
                os.fchmod(handle, 0o600)  # nobody's yet
        finally:
            os.close(handle)
        if begins and begins != _HEADER and self.path.name != NAME:
            # A slip in store.url must not cost somebody's file. One of our own name has gone bad.
            raise StoreError(f"{self.path}: is no file of decisions; name another one in store.url, or remove it")
        db = self._db = sqlite3.connect(self.path, timeout=_LOCKED, isolation_level=None)
        self._inode = _inode(self.path)
        (of,) = db.execute("PRAGMA application_id").fetchone()
        if of != _APPLICATION and db.execute("SELECT count(*) FROM sqlite_master").fetchone() != (0,):
            raise StoreError(f"{self.path}: is another program's database; name another file in store.url")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        self._migrate(db)
        (self._generation,) = db.execute("SELECT value FROM meta WHERE name = 'generation'").fetchone()
        self._wal_inode = _inode(self._wal)
        self._opened_at = self._wall(), self._monotonic()
        self._sweep_at = self._monotonic() + AT_LEAST
        # What fired while nobody looked gets the time to be seen again, by whatever the clock shows now. Where the disk
        # has no room for this, `slice` still says so.
        with contextlib.suppress(sqlite3.OperationalError):
            now = self._opened_at[0]
            db.execute(
                "UPDATE decisions SET until = min(max(until, ?1), ?2) WHERE until NOT BETWEEN ?1 AND ?2",
                (now + AT_LEAST, now + AT_MOST),
            )
        return db

    def _migrate(self, db: sqlite3.Connection) -> None:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version > len(_MIGRATIONS):
            raise StoreError(f"{self.path}: written by a newer version of this program, which can go on with it")
        if version == len(_MIGRATIONS):
            return
        try:
            db.execute("BEGIN IMMEDIATE")
            (version,) = db.execute("PRAGMA user_version").fetchone()  # another may have been faster
            for migration in _MIGRATIONS[version:]:
                for statement in migration.split(";"):
                    db.execute(statement)
            db.execute("INSERT OR IGNORE INTO meta VALUES ('generation', ?)", (secrets.token_hex(8),))
            db.execute(f"PRAGMA application_id = {_APPLICATION}")
            db.execute(f"PRAGMA user_version = {len(_MIGRATIONS)}")
            db.execute("COMMIT")
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")

    def _move_aside(self, why: sqlite3.Error) -> None:
        self._close()
        aside = f"{self.path}.corrupt-{int(self._wall())}"
        try:
            for suffix in ("", "-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    Path(f"{self.path}{suffix}").replace(f"{aside}{suffix}")
        except OSError as exc:
            raise self._error(exc) from exc
        log.error(
            "the decisions' file is corrupted, beginning a new one", path=str(self.path), aside=aside, error=str(why)
        )

    def _error(self, exc: Exception) -> StoreError:
        text = exc.strerror or str(exc) if isinstance(exc, OSError) else str(exc)
        return StoreError(f"{self.path}: {text}")

    # Rows

    def _now(self) -> float:
        """Return the wall clock as it was at the opening, gone on without a jump: those end no decision."""
        wall, monotonic = self._opened_at
        return wall + self._monotonic() - monotonic

    def _held(self, db: sqlite3.Connection, identity: Identity, now: float) -> Kept | None:
        row = db.execute(f"SELECT {_COLUMNS} FROM decisions WHERE identity = ?", (identity,)).fetchone()  # noqa: S608
        return _kept(row, row[4] - now, _read) if row and row[4] > now else None


def _kept(row: tuple[Any, ...], left: float, texts: Callable[[str], LabelSet]) -> Kept | None:
    """Return a row's decision; None when somebody else wrote it, which then is as if it were not there."""
    identity, life, labels, annotations, _, resolved_at, fires_until, original = row
    try:
        decision = Decision(Identity(identity), texts(labels), texts(annotations))
    except (ValueError, TypeError):
        return None
    return Kept(decision, life, min(left, AT_MOST), original, resolved_at, fires_until)


def _row(kept: Kept, now: float) -> tuple[Any, ...]:
    decision = kept.decision
    labels, annotations = written(decision.labels), written(decision.annotations)
    until = now + min(kept.left, AT_MOST)
    return decision.identity, kept.life, labels, annotations, until, kept.resolved_at, kept.fires_until, kept.original


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _code(exc: sqlite3.Error) -> int:
    """Return SQLite's primary code; 0: the error is the module's own."""
    return int(getattr(exc, "sqlite_errorcode", 0)) & 0xFF
