"""A crowd that wants places, for the tests of the queue."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from proxy.classification.queue import Places, Priority, Question
from proxy.errors import ClassifierBusy

CRITICAL, NORMAL = Priority.CRITICAL, Priority.NORMAL


class Crowd:
    """Calls that want a place, and keep it until they are told to leave."""

    def __init__(self, places: int = 1, limit: int = 1000, together: int = 1) -> None:
        self.dropped: list[Priority] = []
        self.places = Places[str, str](places, self._serve, together=together, limit=limit, on_drop=self.dropped.append)
        self.order: list[str] = []
        """Who got a place, in turn; those who share one are joined by a +."""
        self.alone: set[str] = set()
        """Who has to ask again, for a place of his own."""
        self.forgotten: set[str] = set()
        """Who gets no answer."""
        self.fails: Exception | None = None
        self._leave: dict[str, asyncio.Event] = {}
        self.calls: dict[str, asyncio.Task[str]] = {}

    def come(self, who: str, priority: Priority = NORMAL, name: str = "", kind: str | None = None) -> None:
        self._leave[who] = asyncio.Event()
        self.calls[who] = asyncio.create_task(self._call(who, priority, name or who, kind))

    async def _call(self, who: str, priority: Priority, name: str, kind: str | None) -> str:
        return await self.places.answer(Question(who, priority, name, kind))

    async def _serve(self, questions: Sequence[Question[str, str]]) -> None:
        self.order.append("+".join(question.subject for question in questions))
        for question in questions:
            await self._leave[question.subject].wait()
        if self.fails:
            raise self.fails
        for question in questions:
            if question.subject in self.alone and len(questions) > 1:
                self.places.alone(question)
            elif question.subject not in self.forgotten and not question.answer.done():
                question.answer.set_result(f"for {question.subject}")

    def leave(self, who: str) -> None:
        self._leave[who].set()

    async def everyone_leaves(self) -> list[str]:
        """Return in which order they had places, once all have had one."""
        for event in self._leave.values():
            event.set()
        await asyncio.gather(*self.calls.values(), return_exceptions=True)
        return self.order


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def turned_away(crowd: Crowd) -> list[str]:
    await settled()
    return [who for who, call in crowd.calls.items() if call.done() and isinstance(call.exception(), ClassifierBusy)]
