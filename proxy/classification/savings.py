"""What the class cache saves: the calls that were not made, at what a call takes on average, for each class in it."""

from __future__ import annotations

from collections.abc import Callable

from proxy.classification.usage import Usage


class Savings:
    """Counts classes whose verdict was known, and prices them by the mean of the calls that this process has made.

    Those that were known before the first call of a process are counted with it.
    """

    def __init__(self, on_saved: Callable[[float, float], None] = lambda _tokens, _usd: None) -> None:
        """`on_saved` hears how many tokens and US dollars more have been saved."""
        self._on_saved = on_saved
        self._made = 0
        self._tokens = 0
        self._usd = 0.0
        self._unpriced = 0
        """Calls that were saved before it was known what one takes."""
        self.calls = 0
        """That were not made."""
        self.tokens = 0.0
        self.usd = 0.0

    def made(self, usage: Usage, classes: int = 1) -> None:
        """A call about so many classes took so much. One of which that is not known says nothing of others."""
        tokens = (usage.prompt_tokens or 0) + (usage.completion_tokens or 0)
        if not tokens:
            return
        self._made += classes
        self._tokens += tokens
        self._usd += usage.cost_usd or 0.0
        unpriced, self._unpriced = self._unpriced, 0
        self._price(unpriced)

    def saved(self, calls: int) -> None:
        """So many calls were not made, because the cache knew."""
        self.calls += calls
        if self._made:
            self._price(calls)
        else:
            self._unpriced += calls

    def _price(self, calls: int) -> None:
        if not calls:
            return
        tokens, usd = calls * self._tokens / self._made, calls * self._usd / self._made
        self.tokens += tokens
        self.usd += usd
        self._on_saved(tokens, usd)
