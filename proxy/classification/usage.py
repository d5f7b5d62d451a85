"""What a call of a model cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeVar

_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True, slots=True)
class Usage:
    """Of one call, all its requests together. A number is None where no provider named one."""

    requests: int = 0
    """Made, whatever became of them."""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost_usd: float | None = None
    """By llm.prices, else by LiteLLM's list; None for a model that is on neither, 0 for one that is free."""

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.requests + other.requests,
            _sum(self.prompt_tokens, other.prompt_tokens),
            _sum(self.completion_tokens, other.completion_tokens),
            _sum(self.cost_usd, other.cost_usd),
        )


NO_USAGE: Final = Usage()


def _sum(one: _Number | None, other: _Number | None) -> _Number | None:
    if one is None or other is None:
        return one if other is None else other
    return one + other
