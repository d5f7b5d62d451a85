"""The port to where decisions are kept beyond this process."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from proxy.alert import Identity
from proxy.decisions.decision import Decision


@dataclass(frozen=True, slots=True)
class Kept:
    """A decision and its life, as a store keeps it."""

    decision: Decision
    life: int
    """Which life of the alert the decision is for: a random number below 2**63."""
    left: float
    """Seconds that the decision still lives. A duration, so that no two clocks have to agree."""
    original: str = ""
    """The labels as the sender gave them, as a JSON object: for people who look into the store."""
    resolved_at: float | None = None
    """The endsAt of the resolve that was seen last, in seconds since 1970; None while it fires."""
    fires_until: float | None = None
    """The latest endsAt that any sender gave while it fired, in seconds since 1970."""
    replaces: int = 0
    """The life that ended before this one; 0: none. Not kept: it is for `claim`."""
    begun: float | None = None
    """The startsAt of the life that replaces another, in seconds since 1970. Not kept either."""


@dataclass(frozen=True, slots=True)
class Beat:
    """What all who use one store hear of each other."""

    generations: Mapping[str, str]
    """Of each part of the store that answered, by a name of its own. Another one than before: that part was emptied or
    replaced, and knows nothing of what it was given."""
    state: str | None
    """What `write_state` was given last, by anybody."""
    peers: Mapping[str, str] = field(default_factory=dict)
    """What each proxy said of itself in the last seconds, by its name; the asker is among them."""


@dataclass(frozen=True, slots=True)
class Change:
    """Something that another proxy did in a shared store."""

    forgotten: frozenset[Identity] = frozenset()
    """Decisions that an operator dropped. None: the state was written, ask `beat`."""


class DecisionStore(Protocol):
    """Memory of decisions. Raises StoreError when it cannot answer, soon.

    A whole batch at a time: Prometheus posts up to 256 alerts, and each question is a round trip.
    """

    kind: ClassVar[str]
    """`memory`, `sqlite` or `redis`."""
    shared: ClassVar[bool]
    """Whether several proxies see the same decisions."""

    def load(self) -> AsyncIterator[Sequence[Kept]]:
        """Yield all there is, in slices. May yield a decision twice, and miss one that comes meanwhile."""
        ...

    async def get(self, identities: Collection[Identity]) -> Mapping[Identity, Kept]:
        """Return the decisions there are; those without one are left out."""
        ...

    async def claim(self, new: Sequence[Kept], *, patient: bool = False) -> Mapping[Identity, Kept]:
        """Keep decisions; return, for each, the one that holds. Never executed after it has raised StoreError.

        The first one wins. Where there is one already
        - of the life that the new one `replaces`, the new one takes its place; but in a shared store not if that
          life is known to fire later than the new one has `begun`: another proxy has gone on with it;
        - of the same life and with the same labels, it takes the rest from the new one;
        - else it holds, and lives at least as long as the new one: what is known of another life says nothing of it.

        `patient`: no alert waits for it.
        """
        ...

    async def forget(self, identities: Collection[Identity]) -> None:
        """Drop decisions, here and, by `changes`, wherever the store is shared."""
        ...

    async def beat(self, name: str, me: str) -> Beat:
        """Say that the proxy `name` is there, and `me` of it; hear what there is to hear."""
        ...

    async def write_state(self, state: str) -> None:
        """Keep `state` in the place of what was kept, and tell the others."""
        ...

    def changes(self) -> AsyncGenerator[Change, None]:
        """Yield what others do; never in a private store. Ends when the connection does: ask again."""
        ...
