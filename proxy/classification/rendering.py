"""Makes prompts without holding up the alerts that are on their way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from proxy.alert import Alert
from proxy.classification.prompts import Prompt

REST: Final = 4
"""After a prompt none is made for so many times as long as that one took."""
LONGEST: Final = 0.2
"""Seconds of a rest at most."""


class Rendering:
    """One prompt at a time, for one event loop.

    To make one takes half a millisecond, and some tens for an alert that was written to be slow. In a storm hundreds
    are wanted at one moment, in which nothing else would be done; with a rest after each they have a fifth of the time.
    """

    def __init__(self, render: Callable[[Alert], Prompt]) -> None:
        self._render = render
        self._turn = asyncio.Lock()

    async def __call__(self, alert: Alert) -> Prompt:
        """Return what leaves about `alert`. Raises ClassifierUnusable when the template cannot cope with it."""
        loop = asyncio.get_running_loop()
        await self._turn.acquire()
        begun = loop.time()
        try:
            return self._render(alert)
        finally:
            loop.call_later(min(REST * (loop.time() - begun), LONGEST), self._turn.release)
