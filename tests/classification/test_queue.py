"""The queue for places: whose turn it is, who is turned away, and that nobody is lost on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from crowds import CRITICAL, NORMAL, Crowd, settled, turned_away
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from proxy.classification.queue import FAIR, Places, Priority, Question
from proxy.errors import ClassifierBusy


async def test_one_name_with_a_thousand_classes_does_not_keep_others_waiting():
    crowd = Crowd()
    for n in range(5):
        crowd.come(f"storm {n}", name="Storm")
    crowd.come("disk", name="Disk")
    crowd.come("network", name="Network")
    await settled()
    assert await crowd.everyone_leaves() == ["storm 0", "storm 1", "disk", "network", "storm 2", "storm 3", "storm 4"]


async def test_names_take_turns_also_with_those_that_come_later():
    crowd = Crowd()
    for who, name in [("a1", "A"), ("a2", "A"), ("a3", "A"), ("b1", "B"), ("b2", "B")]:
        crowd.come(who, name=name)
    await settled()
    crowd.leave("a1")
    await settled()
    crowd.come("c1", name="C")
    await settled()
    assert await crowd.everyone_leaves() == ["a1", "a2", "b1", "a3", "c1", "b2"]


async def test_what_its_author_calls_critical_comes_first():
    crowd = Crowd()
    for who, priority in [("first", NORMAL), ("normal", NORMAL), ("critical", CRITICAL), ("too", CRITICAL)]:
        crowd.come(who, priority)
    await settled()
    assert await crowd.everyone_leaves() == ["first", "critical", "too", "normal"]


async def test_criticals_without_an_end_leave_each_fourth_place_to_the_others():
    crowd = Crowd()
    for n in range(9):
        crowd.come(f"c{n}", CRITICAL)
    for who in ("a", "b"):
        crowd.come(who)
    await settled()
    assert await crowd.everyone_leaves() == ["c0", "c1", "c2", "c3", "a", "c4", "c5", "c6", "b", "c7", "c8"]


async def test_when_too_many_wait_the_oldest_goes_and_who_comes_enters():
    crowd = Crowd(limit=2)
    for who in ("runs", "old", "young", "new"):
        crowd.come(who, name="A")
    assert (await turned_away(crowd), crowd.dropped, crowd.places.waiting) == (["old"], [NORMAL], 2)
    with pytest.raises(ClassifierBusy, match="2 calls wait already"):
        await crowd.calls["old"]
    assert await crowd.everyone_leaves() == ["runs", "young", "new"]


async def test_the_oldest_of_the_lowest_priority_goes_and_no_critical_for_a_normal():
    crowd = Crowd(limit=2)
    for who, priority in [("runs", NORMAL), ("old", CRITICAL), ("young", NORMAL), ("new", CRITICAL), ("late", NORMAL)]:
        crowd.come(who, priority)
    assert (await turned_away(crowd), crowd.dropped) == (["young", "late"], [NORMAL, NORMAL])
    crowd.come("newest", CRITICAL)
    assert (await turned_away(crowd), crowd.dropped[2:]) == (["old", "young", "late"], [CRITICAL])
    assert await crowd.everyone_leaves() == ["runs", "new", "newest"]


async def test_the_oldest_is_the_oldest_of_all_names():
    crowd = Crowd(limit=3)
    for who, name in [("runs", "R"), ("b1", "B"), ("a1", "A"), ("b2", "B")]:
        crowd.come(who, name=name)
    await settled()
    crowd.leave("runs")  # B has had its turn, and stands behind A
    await settled()
    for who in ("c1", "c2"):
        crowd.come(who, name="C")
    assert await turned_away(crowd) == ["a1"]
    await crowd.everyone_leaves()


async def test_a_place_that_is_given_to_one_who_has_just_left_goes_to_the_next():
    crowd = Crowd()
    for who in ("runs", "leaves", "next"):
        crowd.come(who)
    await settled()
    crowd.calls["runs"].cancel()
    await asyncio.sleep(0)
    crowd.calls["leaves"].cancel()  # it has a place, and does not know it yet
    await settled()
    assert crowd.order == ["runs", "next"]
    await crowd.everyone_leaves()
    assert (crowd.places.running, crowd.places.waiting) == (0, 0)


async def test_one_who_has_just_left_gets_no_place_and_is_not_turned_away():
    crowd = Crowd(limit=1)
    for who in ("runs", "leaves"):
        crowd.come(who)
    await settled()
    crowd.come("new")
    crowd.calls["leaves"].cancel()  # in the same turn, and heard of after it
    await settled()
    crowd.leave("runs")
    await settled()
    assert (crowd.order, crowd.dropped, crowd.calls["leaves"].cancelled()) == (["runs", "new"], [], True)
    await crowd.everyone_leaves()


async def test_a_place_is_not_given_to_one_who_has_just_left():
    crowd = Crowd()
    for who in ("runs", "leaves", "next"):
        crowd.come(who)
    await settled()
    crowd.leave("runs")
    crowd.calls["leaves"].cancel()  # in the same turn, and heard of after it
    await settled()
    assert (crowd.order, crowd.calls["leaves"].cancelled()) == (["runs", "next"], True)
    await crowd.everyone_leaves()


async def test_one_who_has_left_does_not_wait_any_more():
    crowd = Crowd()
    for who in ("runs", "leaves"):
        crowd.come(who)
    await settled()
    crowd.calls["leaves"].cancel()
    await settled()
    assert crowd.places.waiting == 0
    await crowd.everyone_leaves()


class Queue(RuleBasedStateMachine):
    """Calls come, leave and are cancelled in any order, several within one turn of the loop."""

    PLACES, LIMIT = 2, 4

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.dropped = 0
        self.places = Places[int, None](self.PLACES, self._serve, limit=self.LIMIT, on_drop=self._drop)
        self.numbers = 0
        self.kinds: dict[int, tuple[Priority, str]] = {}
        self.leave: dict[int, asyncio.Event] = {}
        self.calls: dict[int, asyncio.Task[None]] = {}
        self.inside: list[int] = []
        self.served: list[int] = []
        self.cancelled: set[int] = set()

    def _drop(self, _: Priority) -> None:
        self.dropped += 1

    async def _call(self, number: int) -> None:
        priority, name = self.kinds[number]
        await self.places.answer(Question(number, priority, name, "any"))

    async def _serve(self, questions: Sequence[Question[int, None]]) -> None:
        [question] = questions
        number = question.subject
        self.inside.append(number)
        self.served.append(number)
        assert len(self.inside) <= self.PLACES
        try:
            await self.leave[number].wait()
        finally:
            self.inside.remove(number)
        question.answer.set_result(None)

    @property
    def waiting(self) -> list[int]:
        return [n for n, call in self.calls.items() if not call.done() and n not in self.inside]

    @rule(kinds=st.lists(st.tuples(st.sampled_from(Priority), st.sampled_from("AB")), min_size=1, max_size=6))
    def come(self, kinds: list[tuple[Priority, str]]) -> None:
        for kind in kinds:
            number = self.numbers = self.numbers + 1
            self.kinds[number], self.leave[number] = kind, asyncio.Event()
            self.calls[number] = self.loop.create_task(self._call(number))

    @rule(which=st.integers(0))
    @precondition(lambda self: self.inside)
    def go(self, which: int) -> None:
        self.leave[self.inside[which % len(self.inside)]].set()

    @rule(which=st.integers(0))
    @precondition(lambda self: self.waiting)
    def cancel_one_that_waits(self, which: int) -> None:
        self._cancel(self.waiting[which % len(self.waiting)])

    @rule(which=st.integers(0))
    @precondition(lambda self: self.inside)
    def cancel_one_that_has_a_place(self, which: int) -> None:
        self._cancel(self.inside[which % len(self.inside)])

    def _cancel(self, number: int) -> None:
        self.calls[number].cancel()
        self.cancelled.add(number)

    @rule()
    def turn(self) -> None:
        self.loop.run_until_complete(asyncio.sleep(0))

    @rule()
    def rest(self) -> None:
        """When nothing moves any more, the numbers are those of the model."""
        self.loop.run_until_complete(settled())
        assert (self.places.running, self.places.waiting) == (len(self.inside), len(self.waiting))
        assert not self.waiting or len(self.inside) == self.PLACES, "a place is free, and somebody waits"
        assert len(self.waiting) <= self.LIMIT
        busy = [n for n, call in self.calls.items() if call.done() and not call.cancelled() and call.exception()]
        assert all(isinstance(self.calls[n].exception(), ClassifierBusy) for n in busy)
        assert self.dropped >= len(busy) >= self.dropped - len(self.cancelled)

    @rule()
    def one_goes_and_the_right_one_comes(self) -> None:
        self.rest()
        if not (waiting := self.waiting):
            return
        urgent = [n for n in waiting if self.kinds[n][0] is min(self.kinds[n][0] for n in waiting)]
        before = len(self.served)
        self.leave[self.inside[0]].set()
        self.loop.run_until_complete(settled())
        came = self.served[before]
        if came not in urgent:
            before_it = self.served[:before][1 - FAIR :]
            assert [self.kinds[n][0] for n in before_it] == [CRITICAL] * (FAIR - 1), "it was not the others' turn"
        namesakes = [n for n in waiting if self.kinds[n] == self.kinds[came]]
        assert came == namesakes[0], "within a name who came first comes first"

    @rule()
    def within_two_places_and_one_both_names_have_had_one(self) -> None:
        self.rest()
        names = [{self.kinds[n][1] for n in self.waiting if self.kinds[n][0] is priority} for priority in Priority]
        first = next((some for some in names if some), set())
        urgent = len(names[CRITICAL]) > 0
        for _ in range(len(first) + (urgent and len(names[NORMAL]) > 0)):  # one of them may be the others' turn
            if not self.inside:
                break
            before = len(self.served)
            self.leave[self.inside[0]].set()
            self.loop.run_until_complete(settled())
            for came in self.served[before:]:
                if (self.kinds[came][0] is CRITICAL) is urgent:
                    first.discard(self.kinds[came][1])
        assert not first

    @invariant()
    def never_more_than_there_are_places(self) -> None:
        assert len(self.inside) <= self.places.running <= self.PLACES

    def teardown(self) -> None:
        self.rest()
        for event in self.leave.values():
            event.set()
        self.loop.run_until_complete(asyncio.wait_for(self._end(), 10))  # nobody is lost: all calls end
        assert (self.places.running, self.places.waiting) == (0, 0)
        assert all(
            n in self.served or n in self.cancelled or isinstance(call.exception(), ClassifierBusy)
            for n, call in self.calls.items()
        )
        self.loop.close()

    async def _end(self) -> None:
        await asyncio.gather(*self.calls.values(), return_exceptions=True)


TestQueue = Queue.TestCase
TestQueue.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
