"""Several that share a place: who takes whom along, and what becomes of them."""

from __future__ import annotations

import asyncio

import pytest
from crowds import CRITICAL, Crowd, settled, turned_away

from proxy.errors import ClassifierBusy, ClassifierUnavailable


def storm(crowd: Crowd, *who: str) -> None:
    """Those come who are named like `a1`, of the name `A`."""
    for one in who:
        crowd.come(one, name=one[0].upper(), kind="any")


async def test_those_that_come_in_one_moment_share_a_place():
    crowd = Crowd(together=3)
    storm(crowd, "a1", "b1", "c1", "d1")
    assert await crowd.everyone_leaves() == ["a1+b1+c1", "d1"]


async def test_one_that_comes_alone_waits_for_nobody():
    crowd = Crowd(places=2, together=3)
    storm(crowd, "a1")
    await settled()
    storm(crowd, "b1")
    await settled()
    assert crowd.order == ["a1", "b1"]
    await crowd.everyone_leaves()


async def test_namesakes_do_not_share_a_place():
    crowd = Crowd(together=3)
    storm(crowd, "a1", "a2", "a3", "b1")
    assert await crowd.everyone_leaves() == ["a1+b1", "a2", "a3"]


async def test_a_namesake_of_another_priority_does_not_share_a_place_either():
    crowd = Crowd(together=3)
    crowd.come("urgent", CRITICAL, name="A", kind="any")
    storm(crowd, "a1", "b1")
    assert await crowd.everyone_leaves() == ["urgent+b1", "a1"]


async def test_criticals_take_along_what_fits_in_beside_them():
    crowd = Crowd(together=3)
    storm(crowd, "a1", "b1", "c1")
    for who in ("urgent", "too"):
        crowd.come(who, CRITICAL, kind="any")
    assert await crowd.everyone_leaves() == ["urgent+too+a1", "b1+c1"]


async def test_others_do_not_share_a_place_with_a_kind():
    crowd = Crowd(together=3)
    for who, kind in [("a", "one"), ("b", "other"), ("c", None), ("d", "one"), ("e", None)]:
        crowd.come(who, kind=kind)
    assert await crowd.everyone_leaves() == ["a+d", "b", "c", "e"]


async def test_each_has_its_own_answer():
    crowd = Crowd(together=3)
    storm(crowd, "a1", "b1", "c1")
    await crowd.everyone_leaves()
    assert [crowd.calls[who].result() for who in ("a1", "b1", "c1")] == ["for a1", "for b1", "for c1"]


async def test_one_that_is_to_ask_again_has_a_place_for_itself():
    crowd = Crowd(together=3)
    crowd.alone = {"b1", "c1"}
    storm(crowd, "a1", "b1", "c1", "d1")
    assert await crowd.everyone_leaves() == ["a1+b1+c1", "d1", "b1", "c1"]
    assert crowd.calls["b1"].result() == "for b1"
    assert (crowd.places.running, crowd.places.waiting) == (0, 0)


async def test_one_that_is_to_ask_again_is_turned_away_as_others_are():
    crowd = Crowd(together=2, limit=2)
    storm(crowd, "a1", "b1")
    await settled()
    for who in ("urgent", "too"):
        crowd.come(who, CRITICAL)
    crowd.alone = {"a1"}
    crowd.leave("a1")
    crowd.leave("b1")
    assert await turned_away(crowd) == ["a1"]
    assert await crowd.everyone_leaves() == ["a1+b1", "urgent", "too"]


async def test_an_error_is_the_answer_of_all():
    crowd = Crowd(together=3)
    crowd.fails = ClassifierUnavailable("x")
    storm(crowd, "a1", "b1")
    await crowd.everyone_leaves()
    assert [crowd.calls[who].exception() for who in ("a1", "b1")] == [crowd.fails] * 2
    assert crowd.places.running == 0


async def test_a_bug_is_told_too():
    crowd = Crowd(together=3)
    crowd.fails = ZeroDivisionError("x")
    storm(crowd, "a1", "b1")
    await crowd.everyone_leaves()
    assert isinstance(crowd.calls["b1"].exception(), ZeroDivisionError)


async def test_those_that_are_forgotten_hear_of_it():
    crowd = Crowd(together=3)
    crowd.forgotten = {"b1"}
    storm(crowd, "a1", "b1")
    await crowd.everyone_leaves()
    assert isinstance(crowd.calls["b1"].exception(), ClassifierUnavailable)


async def test_one_that_leaves_does_not_take_the_place_away_from_others():
    crowd = Crowd(together=3)
    storm(crowd, "a1", "b1", "c1")
    await settled()
    crowd.calls["a1"].cancel()
    await settled()
    assert crowd.places.running == 1
    await crowd.everyone_leaves()
    assert [crowd.calls[who].result() for who in ("b1", "c1")] == ["for b1", "for c1"]


async def test_a_place_is_free_once_all_have_left():
    crowd = Crowd(together=2)
    storm(crowd, "a1", "b1", "c1")
    await settled()
    for who in ("a1", "b1"):
        crowd.calls[who].cancel()
    await settled()
    assert crowd.order == ["a1+b1", "c1"]
    await crowd.everyone_leaves()
    assert (crowd.places.running, crowd.places.waiting) == (0, 0)


async def test_one_that_has_just_left_is_nobodys_company():
    crowd = Crowd(together=3)
    storm(crowd, "a1", "b1", "c1")
    await asyncio.sleep(0)  # they have come, and have no place yet
    crowd.calls["b1"].cancel()
    assert await crowd.everyone_leaves() == ["a1+c1"]


async def test_one_that_has_left_does_not_ask_again():
    crowd = Crowd(together=3)
    crowd.alone = {"a1"}
    storm(crowd, "a1", "b1")
    await settled()
    crowd.calls["a1"].cancel()
    assert await crowd.everyone_leaves() == ["a1+b1"]
    assert crowd.places.waiting == 0


async def test_more_than_may_wait_may_come_when_places_are_free():
    crowd = Crowd(places=2, together=3, limit=3)
    storm(crowd, "a1", "b1", "c1", "d1", "e1", "f1", "g1", "h1", "i1")
    assert await turned_away(crowd) == []
    assert await crowd.everyone_leaves() == ["a1+b1+c1", "d1+e1+f1", "g1+h1+i1"]


async def test_whoever_is_turned_away_is_told_so():
    crowd = Crowd(together=2, limit=2)
    storm(crowd, "a1", "b1")
    await settled()
    storm(crowd, "c1", "d1", "e1")
    assert await turned_away(crowd) == ["c1"]
    with pytest.raises(ClassifierBusy):
        await crowd.calls["c1"]
    await asyncio.wait_for(crowd.everyone_leaves(), 10)
