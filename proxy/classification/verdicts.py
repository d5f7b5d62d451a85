"""The port to where models' verdicts outlive the process, or are shared: the second tier of the class cache."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

from proxy.classification.classes import ClassKey
from proxy.classification.classification import Classification


@dataclass(frozen=True, slots=True)
class Cached:
    """A verdict that was kept."""

    classification: Classification
    """With the source `llm`, as the model gave it: no floor, nothing of one alert."""
    left: float
    """Seconds for which it is still good, more than 0. Of a clock that was wrong when it was put it may be too many."""


class VerdictStore(Protocol):
    """Memory of what models said about classes of alerts. Raises StoreError when it cannot answer, soon.

    It is a cache: what is in it may go at any moment, and what cannot be read is as if it were not there.
    """

    kind: ClassVar[str]
    """`sqlite` or `redis`."""
    shared: ClassVar[bool]
    """Whether several proxies see the same verdicts, and leases keep them from asking about the same class."""

    async def get(self, keys: Collection[ClassKey]) -> Mapping[ClassKey, Cached]:
        """Return the verdicts there are; classes without one are left out."""
        ...

    async def put(self, verdicts: Mapping[ClassKey, Cached]) -> None:
        """Keep verdicts as models gave them, each for the time that is left, in the place of what was kept; one with
        no time left is not kept."""
        ...

    async def lease(self, keys: Collection[ClassKey], holder: str, seconds: float) -> Collection[ClassKey]:
        """Return the classes that `holder` is the one to ask the model about; others are not, for `seconds` from now.

        Those that it holds already are among them, and all of them where nothing is shared. Of the rest another proxy
        will have the verdict.
        """
        ...

    async def release(self, keys: Collection[ClassKey], holder: str) -> None:
        """Give leases back, those that are still `holder`'s."""
        ...
