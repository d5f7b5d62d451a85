"""`sqlite:PATH`: decisions outlive the process, in a file of its own."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import secrets
import sqlite3
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Final, Self

from proxy.alert import Identity, LabelSet
from proxy.decisions.decision import Decision
from proxy.decisions.store import Beat, Change, Kept
from proxy.decisions.stores.claims import AT_MOST, SLICE, read, settle, written
from proxy.storage.database import Call, Database, Kind, Worker

NAME: Final = "decisions.db"
"""Of the file, where no other is named."""
AT_LEAST: Final = 600.0
"""Seconds that a loaded decision lives, whatever the clock did while no proxy ran: alerts that fire come again."""
SWEEP: Final = 60.0
"""Seconds between two times that what has ended is removed."""
_APPLICATION: Final = 0x41415031
"""What this program's files say of themselves: AAP1."""
_PATIENCE: Final = 10.0
"""Seconds for a slice of a load, and for a patient claim: neither holds an alert up."""

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
_KIND: Final = Kind(NAME, "decisions", _APPLICATION, _MIGRATIONS)
_COLUMNS: Final = "identity, life, labels, annotations, until, resolved_at, fires_until, original"
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
        self._file = _File(_KIND, path, now=now, monotonic=monotonic)
        self._worker = Worker(self._file, timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._worker.aclose()

    async def load(self) -> AsyncIterator[Sequence[Kept]]:
        texts = functools.cache(read)
        after: bytes | None = b""
        while after is not None:
            kept, after = await self._worker.do(partial(self._file.slice, after, texts), _PATIENCE)
            yield kept

    async def get(self, identities: Collection[Identity]) -> Mapping[Identity, Kept]:
        return await self._worker.do(partial(self._file.get, identities))

    async def claim(self, new: Sequence[Kept], *, patient: bool = False) -> Mapping[Identity, Kept]:
        return await self._worker.do(partial(self._file.claim, new), _PATIENCE if patient else None)

    async def forget(self, identities: Collection[Identity]) -> None:
        await self._worker.do(partial(self._file.forget, identities))

    async def beat(self, name: str, me: str) -> Beat:
        # What a beat removes late does no harm; and it has to tell in time that the disk hangs.
        generation, state = await self._worker.do(self._file.beat, may_be_late=True)
        return Beat({"": generation}, state, {name: me})

    async def write_state(self, state: str) -> None:
        await self._worker.do(partial(self._file.write, "state", state))

    async def changes(self) -> AsyncGenerator[Change, None]:
        await asyncio.Event().wait()  # there is nobody else
        yield Change()


class _File(Database):
    """The database, for the one thread that works on it."""

    _generation = ""
    _sweep_at = 0.0

    def migrated(self, db: sqlite3.Connection) -> None:
        db.execute("INSERT OR IGNORE INTO meta VALUES ('generation', ?)", (secrets.token_hex(8),))

    def opened(self, db: sqlite3.Connection) -> None:
        (self._generation,) = db.execute("SELECT value FROM meta WHERE name = 'generation'").fetchone()
        self._sweep_at = self.monotonic() + AT_LEAST
        # What fired while nobody looked gets the time to be seen again, by whatever the clock shows now. Where the disk
        # has no room for this, `slice` still says so.
        with contextlib.suppress(sqlite3.OperationalError):
            now = self.now()
            db.execute(
                "UPDATE decisions SET until = min(max(until, ?1), ?2) WHERE until NOT BETWEEN ?1 AND ?2",
                (now + AT_LEAST, now + AT_MOST),
            )

    # Operations

    def slice(self, after: bytes, texts: Callable[[str], LabelSet], _: Call) -> tuple[list[Kept], bytes | None]:
        """Return the decisions that come next, and the last identity of them; None: there are no more."""
        with self.used() as db:
            rows = db.execute(
                f"SELECT {_COLUMNS} FROM decisions WHERE identity > ? ORDER BY identity LIMIT {SLICE}",  # noqa: S608 - our own names
                (after,),
            ).fetchall()
            now = self.now()
            kept = [_kept(row, max(row[4] - now, AT_LEAST), texts) for row in rows]
            return [k for k in kept if k], rows[-1][0] if len(rows) == SLICE else None

    def get(self, identities: Iterable[Identity], _: Call) -> dict[Identity, Kept]:
        with self.used() as db:
            now = self.now()
            return {i: kept for i in identities if (kept := self._held(db, i, now))}

    def claim(self, new: Sequence[Kept], call: Call) -> dict[Identity, Kept]:
        held = {}
        with self.written(call) as db:
            now = self.now()
            for kept in new:
                identity = kept.decision.identity
                before = self._held(db, identity, now)
                holds = held[identity] = settle(before, kept, shared=False)
                if holds is not before:
                    db.execute(
                        f"REPLACE INTO decisions ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - our own names
                        _row(holds, now),
                    )
        return held

    def forget(self, identities: Iterable[Identity], call: Call) -> None:
        with self.written(call) as db:
            db.executemany("DELETE FROM decisions WHERE identity = ?", [(i,) for i in identities])

    def beat(self, call: Call) -> tuple[str, str | None]:
        with self.written(call) as db:
            if self.monotonic() >= self._sweep_at:
                db.execute("DELETE FROM decisions WHERE until <= ?", (self.now(),))
                self._sweep_at = self.monotonic() + SWEEP
            state = db.execute("SELECT value FROM meta WHERE name = 'state'").fetchone()
        return self._generation, state[0] if state else None

    def write(self, name: str, value: str, call: Call) -> None:
        with self.written(call) as db:
            db.execute("REPLACE INTO meta VALUES (?, ?)", (name, value))

    # Rows

    def _held(self, db: sqlite3.Connection, identity: Identity, now: float) -> Kept | None:
        row = db.execute(f"SELECT {_COLUMNS} FROM decisions WHERE identity = ?", (identity,)).fetchone()  # noqa: S608 - our own names
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
