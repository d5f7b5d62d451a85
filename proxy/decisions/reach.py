"""Whether a shared store can be asked on the alert's way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import structlog

from proxy.errors import StoreError, StoreTimeout

log = structlog.get_logger(__name__)

PATIENCE: Final = 1.0
"""Seconds for which a store that does not answer in time is asked again. Then it is known to be away, and costs nothing
more until it is back."""
AGAIN: Final = 0.05
QUARANTINE: Final = 5.0
"""Seconds after a store has come back in which labels are still the rules': another proxy may not have noticed yet, and
would label by the rules what this one labels by the model."""

T = TypeVar("T")


class Reach:
    """Asks a store, and remembers that it was away. Whoever beats tells when it is there."""

    def __init__(
        self, *, shared: bool, on_error: Callable[[], None], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._shared = shared
        self._on_error = on_error
        self._monotonic = monotonic
        self._back_at: float | None = None
        self.up = True
        self.error = ""
        """Why it is away; empty while it is not."""

    @property
    def trusted(self) -> bool:
        """Whether all proxies can be taken to reach the store: what one claims the others will see."""
        return self.up and (self._back_at is None or self._monotonic() - self._back_at > QUARANTINE)

    async def ask(self, question: Callable[[], Awaitable[T]], within: float) -> T | None:
        """Return the answer; None when the store is away. One try at least, others while `within` seconds last."""
        until = self._monotonic() + min(within, PATIENCE)
        while self.up:
            try:
                return await question()
            except StoreError as exc:
                # Whoever is refused need not ask twice, and who has no time cannot.
                if not isinstance(exc, StoreTimeout) or self._monotonic() + AGAIN > until:
                    self.lost(exc)
                    return None
                self._on_error()
            await asyncio.sleep(AGAIN)
        return None

    def lost(self, exc: StoreError) -> None:
        """The store is away."""
        self._on_error()
        if self.up:
            log.error(
                "the decision store is away: what was decided holds",
                new_alerts="get the rules' labels, which all proxies give alike" if self._shared else "as ever",
                error=str(exc),
            )
        self.up, self.error = False, str(exc)

    def found(self) -> None:
        """The store has answered."""
        if not self.up:
            self.up, self.error = True, ""
            self._back_at = self._monotonic()
            log.info("the decision store is back")
