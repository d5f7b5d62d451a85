"""A file of SQLite, and the one thread that works on it: it may wait for a disk, and the event loop may not."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog

from proxy.errors import StoreError, StoreTimeout
from proxy.storage.thread import DaemonThread

log = structlog.get_logger(__name__)

T = TypeVar("T")

TRY_AGAIN: Final = 1.0
"""Seconds between two tries to open a file that could not be opened."""
_HEADER: Final = b"SQLite format 3\0"
_LOCKED: Final = 0.1
"""Seconds that another program may hold the file."""
_CLOSING: Final = 1.0
"""Seconds for closing. It is on the way of SIGTERM, and whatever was answered is safe without it."""
_GONE_BAD: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_PASSES: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL})
"""After these the connection is as good as before."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What a file of this program is for."""

    name: str
    """Of the file, where no other is named."""
    holds: str
    """What is in it, for people."""
    application: int
    """What it says of itself: SQLite's application_id."""
    migrations: Sequence[str]
    """Each takes a file from one version to the next; PRAGMA user_version says which one it has."""
    expendable: bool = False
    """Of what has gone bad, one file at most is kept for people to look into."""


class Call:
    """One operation, which is either carried out or given up: never carried out after it was given up."""

    def __init__(self) -> None:
        self._carrying_out = threading.Lock()
        self._given_up = False

    def run(self, work: Callable[[Call], T]) -> T:
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


class Database:
    """The file, for the thread. Whoever keeps something in it inherits this, and has operations that take a `Call`.

    It is opened when it is needed, and again when it was lost; while that fails, each operation raises StoreError and
    says why.
    """

    def __init__(self, kind: Kind, path: Path, *, now: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self.kind = kind
        self.path = path
        self.wall = now
        self.monotonic = monotonic
        self.opened_at = (0.0, 0.0)
        """What the wall clock and the monotonic clock showed."""
        self._db: sqlite3.Connection | None = None
        self._wal = Path(f"{path}-wal")
        self._inode: tuple[int, int] | None = None
        self._wal_inode: tuple[int, int] | None = None
        self._try_at = -1.0
        self._why = ""

    def migrated(self, db: sqlite3.Connection) -> None:
        """Add what the tables begin with, within the transaction that made them or brought them up to date."""

    def opened(self, db: sqlite3.Connection) -> None:
        """Look into the file that was just opened."""

    def now(self) -> float:
        """Return the wall clock as it was at the opening, gone on without a jump: those end nothing."""
        wall, monotonic = self.opened_at
        return wall + self.monotonic() - monotonic

    def end(self) -> None:
        """Close it."""
        self._close()

    def _close(self) -> None:
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    @contextlib.contextmanager
    def written(self, call: Call) -> Iterator[sqlite3.Connection]:
        """Yield the connection within a transaction, which `call` commits at the end. StoreError when that fails."""
        with self.used(anew=self._was_replaced()) as db:
            db.execute("BEGIN IMMEDIATE")
            yield db
            call.commit(db)

    @contextlib.contextmanager
    def used(self, *, anew: bool = False) -> Iterator[sqlite3.Connection]:
        """Yield the connection, opened where there is none, or `anew`. StoreError for whatever SQLite says."""
        if anew:
            log.error("a file was removed or replaced, opening it anew", holds=self.kind.holds, path=str(self.path))
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
        if self.monotonic() < self._try_at:
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
            self._try_at, self._why = self.monotonic() + TRY_AGAIN, str(error)
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
        if begins and begins != _HEADER and self.path.name != self.kind.name:
            # A slip in store.url must not cost somebody's file. One of our own name has gone bad.
            raise StoreError(
                f"{self.path}: is no file of {self.kind.holds}; name another one in store.url, or remove it"
            )
        db = self._db = sqlite3.connect(self.path, timeout=_LOCKED, isolation_level=None)
        self._inode = _inode(self.path)
        (of,) = db.execute("PRAGMA application_id").fetchone()
        if of != self.kind.application and db.execute("SELECT count(*) FROM sqlite_master").fetchone() != (0,):
            raise StoreError(f"{self.path}: is another program's database; name another file in store.url")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        self._migrate(db)
        self._wal_inode = _inode(self._wal)
        self.opened_at = self.wall(), self.monotonic()
        self.opened(db)
        return db

    def _migrate(self, db: sqlite3.Connection) -> None:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version > len(self.kind.migrations):
            raise StoreError(f"{self.path}: written by a newer version of this program, which can go on with it")
        if version == len(self.kind.migrations):
            return
        try:
            db.execute("BEGIN IMMEDIATE")
            (version,) = db.execute("PRAGMA user_version").fetchone()  # another may have been faster
            for migration in self.kind.migrations[version:]:
                for statement in migration.split(";"):
                    db.execute(statement)
            self.migrated(db)
            db.execute(f"PRAGMA application_id = {self.kind.application}")
            db.execute(f"PRAGMA user_version = {len(self.kind.migrations)}")
            db.execute("COMMIT")
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")

    def _move_aside(self, why: sqlite3.Error) -> None:
        self._close()
        aside = f"{self.path}.corrupt" if self.kind.expendable else f"{self.path}.corrupt-{int(self.wall())}"
        try:
            for suffix in ("", "-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    Path(f"{self.path}{suffix}").replace(f"{aside}{suffix}")
        except OSError as exc:
            raise self._error(exc) from exc
        log.error(
            "a file is corrupted, beginning a new one",
            holds=self.kind.holds,
            path=str(self.path),
            aside=aside,
            error=str(why),
        )

    def _error(self, exc: Exception) -> StoreError:
        text = exc.strerror or str(exc) if isinstance(exc, OSError) else str(exc)
        return StoreError(f"{self.path}: {text}")


class Worker:
    """The thread, and the operations that wait for it."""

    def __init__(self, database: Database, timeout: float) -> None:
        self._database = database
        self._timeout = timeout
        self._thread = DaemonThread("sqlite")

    async def aclose(self) -> None:
        """Close the file once what is under way is done, and give up waiting for a disk that does not answer."""
        closed = asyncio.get_running_loop().run_in_executor(self._thread, self._database.end)
        closed.add_done_callback(_heard)
        self._thread.shutdown()
        await asyncio.wait({closed}, timeout=_CLOSING)

    async def do(self, work: Callable[[Call], T], within: float | None = None, *, may_be_late: bool = False) -> T:
        """Have it done `within` seconds, or raise StoreTimeout; then it never is, unless it `may_be_late`."""
        within = within or self._timeout
        call = Call()
        done = asyncio.get_running_loop().run_in_executor(self._thread, call.run, work)
        try:
            finished, _ = await asyncio.wait({done}, timeout=within)
            if not finished and not call.give_up() and not may_be_late:
                # It just is carried out, however long the disk takes for that. No alert waits for it.
                finished, _ = await asyncio.wait({done})
        except asyncio.CancelledError:
            call.give_up()
            done.add_done_callback(_heard)
            raise
        if not finished:
            done.add_done_callback(_heard)
            raise StoreTimeout(f"{self._database.path}: the disk does not answer within {within:g} s")
        return done.result()


def _heard(done: asyncio.Future[Any]) -> None:
    """Take note of an error that nobody waits for any more."""
    if not done.cancelled():
        done.exception()


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _code(exc: sqlite3.Error) -> int:
    """Return SQLite's primary code; 0: the error is the module's own."""
    return int(getattr(exc, "sqlite_errorcode", 0)) & 0xFF
