"""`sqlite:PATH`: how much of a day's caps was taken, in a file beside that of the decisions.

In a file of its own: the class cache may be deleted at any time, and what was spent was spent.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Final, Self

from proxy.classification.pacing import NOTHING, Amounts
from proxy.classification.spending import Taken
from proxy.storage.database import Call, Database, Kind, Worker

NAME: Final = "spending.db"
PATIENCE: Final = 2.0
"""Seconds that the file may take: no POST waits for it, and what it does not say may be spent twice."""
_APPLICATION: Final = 0x41415331
"""What this program's files say of themselves: AAS1."""
_KEPT: Final = 2
"""Days that are kept, today among them."""
_MIGRATIONS: Final = (
    """
    CREATE TABLE spent (
        day INTEGER PRIMARY KEY, -- since 1970
        tokens INTEGER NOT NULL,
        nano_usd INTEGER NOT NULL
    )
    """,
)


class SqliteSpending:
    """A SpendingStore for one machine. `async with` closes it.

    Entering it does not fail: while the file cannot be used, each exchange raises StoreError and says why.
    """

    shared: ClassVar[bool] = False

    def __init__(
        self,
        path: Path,
        *,
        timeout: float = PATIENCE,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        kind = Kind(NAME, "what was spent", _APPLICATION, _MIGRATIONS, expendable=True)
        self._file = _File(kind, path, now=now, monotonic=monotonic)
        self._worker = Worker(self._file, timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._worker.aclose()

    async def exchange(self, day: int, change: Amounts, take: Amounts, limit: Amounts, known: Amounts) -> Taken:
        return await self._worker.do(partial(self._file.exchange, day, change, take, limit, known))


class _File(Database):
    """The database, for the one thread that works on it."""

    def exchange(self, day: int, change: Amounts, take: Amounts, limit: Amounts, known: Amounts, call: Call) -> Taken:
        with self.written(call) as db:
            row = db.execute(
                "SELECT CAST(tokens AS INTEGER), CAST(nano_usd AS INTEGER) FROM spent WHERE day = ?", (day,)
            ).fetchone()
            total = ((Amounts(*row) if row else known) + change).at_least(NOTHING)
            granted = take.at_most(limit - total).at_least(NOTHING)
            total += granted
            db.execute("REPLACE INTO spent VALUES (?, ?, ?)", (day, total.tokens, total.nano_usd))
            db.execute("DELETE FROM spent WHERE day <= ?", (day - _KEPT,))
        return Taken(granted, total)
