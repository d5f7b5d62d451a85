"""Who is next for one of a few places: by priority, and within one in turns by name.

Each fourth place goes to the lowest priority that waits, since anybody can call anything critical.

An alertname with a thousand classes waits as a crowd, and one with a single class is next but one: each name gets a
place in turn. When too many wait, the one goes who has waited longest of the lowest priority, and not who comes: an
alert that has waited so long has long left with what the rules said.

Where several may share a place, whoever is next takes along others of the same kind, each of another name, in the order
of their turns. Nobody waits for company: who finds a place free has the company of those that came in the same moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterator, Sequence
from enum import IntEnum
from functools import partial
from typing import Final, Generic, TypeVar

from proxy.errors import ClassifierBusy, ClassifierUnavailable

FAIR: Final = 4
"""Each so many-th place goes to the lowest priority."""
WAITING_LIMIT: Final = 1000
"""Questions that may wait for a place."""

_Subject = TypeVar("_Subject")
_Answer = TypeVar("_Answer")


class Priority(IntEnum):
    """The lower the number, the sooner."""

    CRITICAL = 0
    """Its author calls the alert critical."""
    NORMAL = 1


class Question(Generic[_Subject, _Answer]):
    """One that waits, for a place and then for its answer."""

    __slots__ = ("answer", "kind", "name", "priority", "shares", "subject")

    def __init__(self, subject: _Subject, priority: Priority, name: str, kind: Hashable | None = None) -> None:
        """One without a `kind` has its place for itself."""
        self.subject = subject
        self.priority = priority
        self.name = name
        self.kind = kind
        self.answer: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        # Whoever asks may be cancelled at the moment of an error, and nobody is left to look at it.
        self.answer.add_done_callback(lambda answer: answer.cancelled() or answer.exception())
        self.shares: _Shared[_Subject, _Answer] | None = None
        """Its place, while it has one."""


_Asked = Question[_Subject, _Answer]


class _Shared(Generic[_Subject, _Answer]):
    """A place that is taken."""

    __slots__ = ("questions", "task")

    task: asyncio.Task[None]

    def __init__(self, questions: Sequence[_Asked[_Subject, _Answer]]) -> None:
        self.questions = questions


class _Row(Generic[_Subject, _Answer]):
    """Those of one priority."""

    def __init__(self) -> None:
        # Dictionaries for their order, and because from the middle of one something can be taken.
        self._by_age: dict[_Asked[_Subject, _Answer], None] = {}
        self._by_name: dict[str, dict[_Asked[_Subject, _Answer], None]] = {}
        """The first name is the next to have its turn."""

    def __len__(self) -> int:
        return len(self._by_age)

    @property
    def oldest(self) -> _Asked[_Subject, _Answer]:
        return next(iter(self._by_age))

    def in_turn(self) -> Iterator[_Asked[_Subject, _Answer]]:
        """Yield who is first of each name, in the order of the names' turns."""
        for namesakes in list(self._by_name.values()):
            while namesakes and (question := next(iter(namesakes))).answer.done():
                self.remove(question)  # it was cancelled a moment ago
            if namesakes:
                yield next(iter(namesakes))

    def add(self, question: _Asked[_Subject, _Answer]) -> None:
        self._by_age[question] = None
        self._by_name.setdefault(question.name, {})[question] = None

    def take(self, question: _Asked[_Subject, _Answer]) -> None:
        """Remove one whose turn it is; its name has the next one after all others."""
        self.remove(question)
        if (others := self._by_name.pop(question.name, None)) is not None:
            self._by_name[question.name] = others

    def remove(self, question: _Asked[_Subject, _Answer]) -> None:
        """Remove one, wherever it is; without effect when it is not here any more."""
        if question not in self._by_age:
            return
        del self._by_age[question]
        namesakes = self._by_name[question.name]
        del namesakes[question]
        if not namesakes:
            del self._by_name[question.name]


class Places(Generic[_Subject, _Answer]):
    """So many places at once, and a queue for them. For one event loop."""

    def __init__(
        self,
        places: int,
        serve: Callable[[Sequence[Question[_Subject, _Answer]]], Awaitable[None]],
        *,
        together: int = 1,
        limit: int = WAITING_LIMIT,
        on_drop: Callable[[Priority], None] = lambda _: None,
    ) -> None:
        """`serve` answers the questions of one place, of which there are at most `together`, or has them ask again
        `alone`; its error is the answer of those that it leaves.

        At most `limit` may wait; `on_drop` hears of each that is turned away because they are too many.
        """
        self._places = places
        self._serve = serve
        self._together = together
        self._limit = limit
        self._on_drop = on_drop
        self._rows: dict[Priority, _Row[_Subject, _Answer]] = {priority: _Row() for priority in Priority}
        self._taken: set[_Shared[_Subject, _Answer]] = set()
        self._in_a_row = 0
        """So many places went to others while somebody of the lowest priority waited."""

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return sum(map(len, self._rows.values()))

    @property
    def running(self) -> int:
        """How many places are taken."""
        return len(self._taken)

    async def answer(self, question: Question[_Subject, _Answer]) -> _Answer:
        """Return the answer, once it was the question's turn. Raises ClassifierBusy when it is turned away.

        A place is given up when nobody waits any more for any of its answers.
        """
        self._add(question)
        try:
            return await question.answer
        except asyncio.CancelledError:
            self._rows[question.priority].remove(question)
            if (place := question.shares) is not None and all(one.answer.done() for one in place.questions):
                place.task.cancel()
                await asyncio.wait({place.task})  # it ends at once, and then all is as if it had not been
            raise

    def alone(self, question: Question[_Subject, _Answer]) -> None:
        """Have a question that shares a place wait for another one, for itself."""
        if question.answer.done():
            return
        question.kind = question.shares = None
        try:
            self._add(question)
        except ClassifierBusy as exc:
            question.answer.set_exception(exc)

    def _add(self, question: Question[_Subject, _Answer]) -> None:
        if self.waiting >= self._limit:
            self._begin()  # there may be a place for one that came in this very moment
        if self.waiting >= self._limit:
            self._make_room(question.priority)
        self._rows[question.priority].add(question)
        if self._together == 1:
            self._begin()
        else:  # when all have come that come in this moment
            asyncio.get_running_loop().call_soon(self._begin)

    def _make_room(self, priority: Priority) -> None:
        """Turn away who has waited longest of the lowest priority, or who comes when that one would be the lowest."""
        lowest = max(one for one, row in self._rows.items() if row)
        error = ClassifierBusy(f"{self._limit} calls wait already")
        if priority > lowest:
            self._on_drop(priority)
            raise error
        dropped = self._rows[lowest].oldest
        self._rows[lowest].remove(dropped)
        if not dropped.answer.done():  # else it was cancelled, and has gone by itself
            self._on_drop(lowest)
            dropped.answer.set_exception(error)

    def _begin(self) -> None:
        """Give the places that are free to those whose turn it is."""
        while len(self._taken) < self._places and (questions := self._next()):
            place = _Shared(questions)
            self._taken.add(place)
            for question in questions:
                question.shares = place
            place.task = asyncio.create_task(self._served(place), name="a call")
            place.task.add_done_callback(partial(self._left, place))

    def _next(self) -> Sequence[Question[_Subject, _Answer]]:
        """Take out whose turn it is, with company; empty when nobody waits."""
        rows = list(self._rows.values())
        if self._in_a_row + 1 >= FAIR:
            rows.reverse()
        in_turn = (question for row in rows for question in row.in_turn())
        if (first := next(in_turn, None)) is None:
            return []
        passed_over = self._rows[max(Priority)] and first.priority is not max(Priority)
        self._in_a_row = self._in_a_row + 1 if passed_over else 0
        taken = {first.name: first}
        while first.kind is not None and len(taken) < self._together and (other := next(in_turn, None)) is not None:
            if other.kind == first.kind:
                taken.setdefault(other.name, other)
        for question in taken.values():
            self._rows[question.priority].take(question)
        return list(taken.values())

    async def _served(self, place: _Shared[_Subject, _Answer]) -> None:
        error: Exception = ClassifierUnavailable("the call was given up")
        try:
            await self._serve(place.questions)
        except Exception as exc:  # noqa: BLE001 - whoever asked gets it, a bug of ours as well
            error = exc
        finally:
            for question in place.questions:
                if question.shares is place and not question.answer.done():
                    question.answer.set_exception(error)

    def _left(self, place: _Shared[_Subject, _Answer], _: asyncio.Task[None]) -> None:
        self._taken.discard(place)
        self._begin()
