"""`sqlite:PATH`: verdicts outlive the process, in a file beside that of the decisions.

In a file and a thread of its own: what goes wrong with a cache (a file that is damaged, a sweep that takes its time, a
disk that hangs over it) is not to keep a decision waiting, or cost one. Nothing is read at the start.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Final, Self

from proxy.classification.classes import ClassKey
from proxy.classification.stores.records import AT_MOST, LIMIT, read, written
from proxy.classification.verdicts import Cached
from proxy.storage.database import Call, Database, Kind, Worker

NAME: Final = "verdicts.db"
CAPACITY: Final = 100_000
"""Verdicts that are kept, 1 % more at most. Beyond it those go first that would end first: the oldest."""
SWEEP: Final = 60.0
"""Seconds between two times that what has ended is removed."""
AT_ONCE: Final = 1000
"""Verdicts that are removed in one go: whoever asks meanwhile waits for it."""
_APPLICATION: Final = 0x41415631
"""What this program's files say of themselves: AAV1."""
_MIGRATIONS: Final = (
    """
    CREATE TABLE verdicts (
        class BLOB PRIMARY KEY,
        until REAL NOT NULL, -- seconds since 1970
        record BLOB NOT NULL
    );
    CREATE INDEX verdicts_until ON verdicts (until)
    """,
)


class SqliteVerdicts:
    """A VerdictStore for one proxy alone. `async with` closes it.

    Entering it does not fail: while the file cannot be used, each operation raises StoreError and says why. Two
    processes may use one file, and leave each other's verdicts alone.
    """

    kind: ClassVar[str] = "sqlite"
    shared: ClassVar[bool] = False

    def __init__(
        self,
        path: Path,
        *,
        timeout: float = 0.1,
        capacity: int = CAPACITY,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        kind = Kind(NAME, "verdicts", _APPLICATION, _MIGRATIONS, expendable=True)
        self._file = _File(kind, path, now=now, monotonic=monotonic, capacity=capacity)
        self._worker = Worker(self._file, timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._worker.aclose()

    async def get(self, keys: Collection[ClassKey]) -> Mapping[ClassKey, Cached]:
        return await self._worker.do(partial(self._file.get, list(keys)))

    async def put(self, verdicts: Mapping[ClassKey, Cached]) -> None:
        records = {
            key: (written(cached.classification), cached.left) for key, cached in verdicts.items() if cached.left > 0
        }
        if records:
            await self._worker.do(partial(self._file.put, records), may_be_late=True)

    async def lease(self, keys: Collection[ClassKey], holder: str, seconds: float) -> Collection[ClassKey]:
        return keys  # a lease in the file would keep the next process from asking when this one is killed

    async def release(self, keys: Collection[ClassKey], holder: str) -> None:
        pass


class _File(Database):
    """The database, for the one thread that works on it."""

    def __init__(
        self, kind: Kind, path: Path, *, now: Callable[[], float], monotonic: Callable[[], float], capacity: int
    ) -> None:
        super().__init__(kind, path, now=now, monotonic=monotonic)
        self._capacity = capacity
        self._sweep_at = 0.0
        self._unswept = 0
        """Verdicts that were put since the last sweep."""

    def get(self, keys: Iterable[ClassKey], _: Call) -> dict[ClassKey, Cached]:
        found = {}
        with self.used() as db:
            now = self.now()
            for key in keys:
                # Whatever type somebody gave to what: a text is beyond each number, and a BLOB needs no decoding.
                row = db.execute(
                    "SELECT until, CAST(record AS BLOB) FROM verdicts"
                    " WHERE class = ? AND until > ? AND until <= ? AND length(CAST(record AS BLOB)) <= ?",
                    (key, now, now + AT_MOST, LIMIT),
                ).fetchone()
                if row and (cached := read(row[1], row[0] - now)):
                    found[key] = cached
        return found

    def put(self, records: Mapping[ClassKey, tuple[bytes, float]], call: Call) -> None:
        with self.written(call) as db:
            now = self.now()
            db.executemany(
                "REPLACE INTO verdicts VALUES (?, ?, ?)",
                [(key, now + min(seconds, AT_MOST), record) for key, (record, seconds) in records.items()],
            )
            due = self.monotonic() >= self._sweep_at or self._unswept >= self._capacity // 100
            swept = due and self._swept(db, now)
        self._unswept += len(records)
        if swept:
            self._unswept, self._sweep_at = 0, self.monotonic() + SWEEP

    def _swept(self, db: sqlite3.Connection, now: float) -> bool:
        """Remove what has ended and what is too much; return whether that was all of it."""
        ended = db.execute(
            "DELETE FROM verdicts WHERE rowid IN (SELECT rowid FROM verdicts WHERE until <= ? OR until > ? LIMIT ?)",
            (now, now + AT_MOST, AT_ONCE),
        ).rowcount
        (there,) = db.execute("SELECT count(*) FROM verdicts").fetchone()
        beyond = min(there - self._capacity, AT_ONCE)
        if beyond > 0:
            db.execute(
                "DELETE FROM verdicts WHERE rowid IN (SELECT rowid FROM verdicts ORDER BY until LIMIT ?)", (beyond,)
            )
        return bool(max(ended, beyond) < AT_ONCE)
