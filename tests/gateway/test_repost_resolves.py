"""Late text and resolves: nothing is posted about an alert that is over. Time is simulated."""

import asyncio
import json

from reposting import World
from simulated import simulated


@simulated
async def test_nothing_is_posted_once_a_resolve_has_come_in():
    world = World()
    sent, other = world.sent(), world.sent("B")
    await world.forward(sent, other)
    world.land(sent, other)
    await asyncio.sleep(0.049)
    world.reposter.resolved([sent.alert.identity])
    await asyncio.sleep(1)
    assert world.posted == [["B"]]


@simulated
async def test_a_firing_copy_that_was_on_its_way_when_the_resolve_came_in_is_not_posted():
    world = World()
    sent = world.sent()
    copy = asyncio.create_task(world.forward(sent, takes=0.5))
    await asyncio.sleep(0)
    await world.resolve(sent)
    world.land(sent)
    await copy
    await asyncio.sleep(1)
    assert world.posts == []


@simulated
async def test_an_old_copy_that_comes_after_the_refire_ends_the_refire_too():
    world = World()
    sent = world.sent()
    await world.forward(sent)
    await asyncio.sleep(1)
    await world.resolve(sent)
    refired = world.sent(begun=2)
    await asyncio.sleep(1)
    await world.forward(refired)
    await world.forward(sent)
    world.land(refired)
    await asyncio.sleep(1)
    assert world.posts == []


@simulated
async def test_a_refire_is_a_new_life():
    world = World()
    sent = world.sent()
    await world.forward(sent)
    world.land(sent)
    await asyncio.sleep(1)
    await world.resolve(sent)
    refired = world.sent(begun=2)
    await asyncio.sleep(1)
    await world.forward(refired)
    world.land(refired)
    await asyncio.sleep(1)
    assert [posted["startsAt"] for *_, [posted] in world.posts] == [
        json.loads(one.element)["startsAt"] for one in (sent, refired)
    ]


@simulated
async def test_a_post_that_is_not_read_may_end_any_alert():
    world = World()
    before, after, landed = world.sent("Before"), world.sent("After", begun=0.5), world.sent("Landed")
    await world.forward(before, landed)
    copy = asyncio.create_task(world.forward(before))
    await asyncio.sleep(0)
    world.land(landed)
    await world.forward()
    await copy
    await asyncio.sleep(0.5)
    await world.forward(after)
    world.land(before, after)
    await asyncio.sleep(1)
    assert world.posted == [["After"]]


@simulated
async def test_more_resolves_than_are_remembered_are_taken_for_all():
    world = World(candidates=3)
    sent, others = world.sent(), [world.sent(f"R{n}") for n in range(4)]
    await world.forward(sent)
    world.reposter.resolved([other.alert.identity for other in others])
    assert len(world.reposter._resolved) == 0
    world.land(sent)
    await world.forward(sent)
    await asyncio.sleep(1)
    assert world.posts == []
    world.reposter.resolved([other.alert.identity for other in others[:2]])
    sent = world.sent("B", begun=1)
    await world.forward(sent)
    world.reposter.resolved([others[2].alert.identity])
    world.land(sent)
    await asyncio.sleep(1)
    assert world.posted == [["B"]]
    for other in [world.sent(f"S{n}") for n in range(20)]:
        world.reposter.resolved([other.alert.identity])
        assert len(world.reposter._resolved) <= 4


@simulated
async def test_a_post_that_is_not_read_counts_for_more_than_an_older_resolve():
    world = World()
    sent = world.sent(begun=1)
    await world.resolve(sent)
    await asyncio.sleep(2)
    copy = asyncio.create_task(world.forward(sent))
    await asyncio.sleep(0)
    await world.forward()
    world.land(sent)
    await copy
    await asyncio.sleep(1)
    assert world.posts == []


@simulated
async def test_text_of_the_life_before_is_no_text_of_this_one():
    world = World()
    sent = world.sent()
    await world.forward(sent)
    await world.resolve(sent)
    world.land(sent)
    refired = world.sent(begun=2)
    await asyncio.sleep(2)
    await world.forward(refired)
    await asyncio.sleep(1)
    assert world.posts == []
