"""Late text and what speaks against posting it. Time is simulated."""

import asyncio
import json
from dataclasses import replace

import pytest
from reposting import HEADERS, LABELS, World
from simulated import simulated

from proxy.gateway import alerts


@simulated
async def test_text_that_lands_late_is_posted_with_the_labels_and_times_that_were_sent():
    world = World()
    sent = world.sent(generatorURL="http://p/?a=\\u0026", extra=[1.50, None])
    await world.forward(sent, path="/am/api/v2/alerts?x=%22")
    await asyncio.sleep(2)
    world.land(sent)
    await asyncio.sleep(1)
    [(at, target, headers, [alert])] = world.posts
    wire = json.loads(sent.element)
    assert alert == wire | {
        "labels": wire["labels"] | LABELS,
        "annotations": {"summary": "s", "ai_summary": "The model's."},
    }
    assert (at, target) == (2.15, "/am/api/v2/alerts?x=%22")
    assert headers == {"Authorization": "Bearer sender", "Content-Type": "application/json"}
    assert world.outcomes == ["sent"]


@simulated
async def test_each_alert_is_posted_once_in_its_life():
    world = World()
    sent = world.sent()
    await world.forward(sent)
    world.land(sent)
    await asyncio.sleep(1)
    world.land(sent)
    await world.forward(sent)  # prepared before the text landed, sent after
    await asyncio.sleep(1)
    assert world.posted == [["A"]]


@simulated
async def test_nothing_is_posted_before_text_lands_or_when_nobody_awaits_it():
    world = World()
    awaited, other = world.sent("A"), world.sent("B")
    await world.forward(awaited, carried=[other])
    world.land(other)
    await asyncio.sleep(20)
    assert (world.posts, world.outcomes) == ([], [])


@pytest.mark.parametrize(
    ("begun", "ends", "lands", "outcomes"),
    [
        pytest.param(0, 240, 14.8, ["sent"], id="in time"),
        pytest.param(14, 240, 14.96, ["unsafe"], id="15 s after the first forward, by a clock that is ahead"),
        pytest.param(-14, 240, 0.5, ["sent"], id="startsAt just young enough"),
        pytest.param(-14, 240, 0.96, ["unsafe"], id="15 s after startsAt"),
        pytest.param(0, 35, 4.9, ["sent"], id="it fires for 30 s"),
        pytest.param(0, 35, 4.96, ["unsafe"], id="it fires for less than 30 s"),
        pytest.param(-15, 240, 1, [], id="too old from the start"),
        pytest.param(16, 240, 1, [], id="a clock too far ahead"),
        pytest.param(None, 240, 1, [], id="no startsAt"),
        pytest.param(0, None, 1, [], id="no endsAt"),
    ],
)
@simulated
async def test_the_times_must_hold_at_the_moment_of_the_post(begun, ends, lands, outcomes):
    world = World()
    sent = world.sent(begun=begun, ends=ends)
    await world.forward(sent)
    await asyncio.sleep(lands - world.at())
    world.land(sent)
    await asyncio.sleep(5)
    assert world.outcomes == outcomes
    assert len(world.posts) == outcomes.count("sent")


@simulated
async def test_a_resend_does_not_begin_the_window_anew():
    world = World()
    sent = world.sent(begun=14)
    for _ in range(6):
        await world.forward(sent)
        await asyncio.sleep(4)
    world.land(sent)
    await asyncio.sleep(1)
    assert world.posts == []


@simulated
async def test_the_earliest_startsat_that_was_sent_counts():
    world = World()
    await world.forward(world.sent(begun=-10))
    sent = world.sent(begun=0)
    await world.forward(sent)
    await asyncio.sleep(6)
    world.land(sent)
    await asyncio.sleep(1)
    assert world.outcomes == ["unsafe"]


@pytest.mark.parametrize(
    ("other", "outcome"),
    [
        pytest.param({"takes": 0.9}, "sent", id="fast"),
        pytest.param({"takes": 1.0}, "unsafe", id="slow"),
        pytest.param({"status": 503}, "unsafe", id="refused"),
        pytest.param({"status": None}, "unsafe", id="not answered"),
    ],
)
@simulated
async def test_alertmanager_must_have_answered_the_last_post_fast(other, outcome):
    world = World()
    sent = world.sent()
    await world.forward(sent)
    await world.forward(world.sent("Other"), **other)
    world.land(sent)
    await asyncio.sleep(1)
    assert world.outcomes == [outcome]


@pytest.mark.parametrize("status", [503, None])
@simulated
async def test_text_that_lands_while_a_post_fails_goes_with_the_next_resend(status):
    world = World()
    sent = world.sent()
    await world.forward(sent)
    resend = asyncio.create_task(world.forward(sent, status=status, takes=0.5))
    await asyncio.sleep(0.1)
    world.land(sent)
    await resend
    await asyncio.sleep(1)
    assert world.outcomes == ["unsafe"]


@simulated
async def test_what_alertmanager_did_not_take_is_not_posted_again():
    world = World()
    sent = world.sent()
    await world.forward(sent, status=503)
    await world.forward(world.sent("Other"))
    world.land(sent)
    await asyncio.sleep(1)
    assert (world.posts, world.outcomes) == ([], [])


@pytest.mark.parametrize("status", [503, None])
@simulated
async def test_an_alert_whose_last_post_failed_is_let_be_also_when_alertmanager_is_fast_again(status):
    world = World()
    sent = world.sent()
    await world.forward(sent)
    await world.forward(sent, status=status)
    await world.forward(world.sent("Other"))
    world.land(sent)
    await asyncio.sleep(1)
    assert world.posts == []


@simulated
async def test_a_post_that_has_no_answer_for_a_second_is_a_sign():
    world = World()
    sent = world.sent()
    await world.forward(sent)
    other = asyncio.create_task(world.forward(world.sent("Other"), takes=3))
    await asyncio.sleep(1)
    world.land(sent)
    await other
    assert world.outcomes == ["unsafe"]


@pytest.mark.parametrize("trouble", [{"takes": 2.0}, {"status": None}, {"status": 500}])
@simulated
async def test_after_one_of_ours_that_failed_nothing_is_posted_until_a_senders_post_was_fast(trouble, capsys):
    world = World()
    first, second, third = (world.sent(name) for name in "ABC")
    await world.forward(first, second, third)
    vars(world).update(trouble)
    world.land(first)
    await asyncio.sleep(2)
    world.status, world.takes = 200, 0.1
    world.land(second)
    await asyncio.sleep(1)
    await world.forward(world.sent("Other"))
    world.land(third)
    await asyncio.sleep(1)
    assert world.outcomes == ["refused" if trouble.get("status") else "failed", "unsafe", "sent"]
    assert world.posted == [["A"], ["C"]]
    assert "a bug" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("lands", "post", "at"),
    [
        pytest.param(0.1, {"takes": 0.8}, 0.85, id="while the alert is on its way"),
        pytest.param(0.05, {"lingers": 0.5}, 0.65, id="while its answer is still relayed"),
    ],
)
@simulated
async def test_text_that_lands_before_the_post_is_over_follows_it(lands, post, at):
    world = World()
    sent = world.sent()
    forward = asyncio.create_task(world.forward(sent, **post))
    await asyncio.sleep(lands)
    world.land(sent)
    await forward
    await asyncio.sleep(1)
    assert [when for when, *_ in world.posts] == [at]


@simulated
async def test_while_a_post_holds_the_alert_none_of_ours_begins_and_the_latest_times_are_sent():
    world = World()
    first, resent = world.sent(ends=240), world.sent(ends=250)
    await world.forward(first)
    resend = asyncio.create_task(world.forward(resent, takes=0.8))
    await asyncio.sleep(0)
    world.land(first)
    await resend
    await asyncio.sleep(1)
    [(at, _, _, [alert])] = world.posts
    assert (at, alert["endsAt"]) == (0.95, json.loads(resent.element)["endsAt"])


@simulated
async def test_what_a_senders_own_post_has_carried_is_not_posted():
    world = World()
    sent = world.sent()
    await world.forward(sent)
    world.land(sent)
    await world.forward(carried=[sent])
    await asyncio.sleep(1)
    assert (world.posts, world.outcomes) == ([], [])


@simulated
async def test_an_older_post_that_is_answered_after_the_one_with_the_text_is_followed_by_the_text():
    world = World()
    sent = world.sent()
    await world.forward(sent)
    stale = asyncio.create_task(world.forward(sent, takes=0.8))
    await asyncio.sleep(0.1)
    world.land(sent)
    await world.forward(carried=[sent])
    await stale
    await asyncio.sleep(1)
    assert world.posted == [["A"]]


@simulated
async def test_a_senders_post_without_times_ends_it():
    world = World()
    sent = world.sent()
    await world.forward(sent)
    await world.forward(world.sent(ends=None))
    world.land(sent)
    await asyncio.sleep(1)
    assert world.posts == []


@pytest.mark.parametrize(("takes", "begun"), [(0.5, 0.65), (9, 1.1)])
@simulated
async def test_a_senders_post_waits_for_ours_a_second_at_most_and_others_not_at_all(takes, begun):
    world = World()
    sent = world.sent()
    await world.forward(sent)
    world.takes = takes
    world.land(sent)
    await asyncio.sleep(0.06)
    other = asyncio.create_task(world.forward(world.sent("Other")))
    waiting = asyncio.create_task(world.forward(carried=[sent]))
    assert await other == pytest.approx(0.16)
    assert await waiting == pytest.approx(begun)


@simulated
async def test_a_senders_post_waits_no_longer_when_ours_outstays_its_deadline():
    world = World()
    sent = world.sent()
    await world.forward(sent)

    async def stubborn(*_):
        await asyncio.sleep(3)
        return 200

    world.reposter._post = stubborn
    world.land(sent)
    await asyncio.sleep(0.1)
    assert await world.resolve(sent) == pytest.approx(0.2 + 1)
    again = world.sent(begun=2)
    await asyncio.sleep(2 - world.at())
    world.reposter._post = world.post
    await world.forward(again)
    world.land(again)
    await asyncio.sleep(3)
    assert world.outcomes == ["sent", "sent"]
    assert world.reposter._under_way == {}


@simulated
async def test_texts_that_land_together_go_together_and_64_at_most():
    world = World()
    sent = [world.sent(f"A{n}") for n in range(100)]
    await world.forward(*sent[:70])
    await world.forward(*sent[70:])
    world.land(*sent[:50])
    await asyncio.sleep(0.04)
    world.land(*sent[50:])
    await asyncio.sleep(1)
    assert [len(names) for names in world.posted] == [64, 36]
    assert world.outcomes == ["sent"] * 100


@simulated
async def test_one_of_ours_at_a_time_goes_one_way():
    world = World()
    first, second = world.sent("A"), world.sent("B")
    await world.forward(first, second)
    world.takes = 0.5
    world.land(first)
    await asyncio.sleep(0.2)
    world.land(second)
    await asyncio.sleep(2)
    assert [at for at, *_ in world.posts] == [0.15, 0.65]


@simulated
async def test_what_was_sent_elsewhere_or_by_somebody_else_goes_by_itself():
    world = World()
    one, two, three = (world.sent(name) for name in "ABC")
    await world.forward(one)
    await world.forward(two, headers={**HEADERS, "X-Scope-OrgID": "2"})
    await world.forward(three, path="/other/api/v2/alerts")
    world.land(one, two, three)
    await asyncio.sleep(1)
    found = {
        names[0]: (target, headers) for (_, target, headers, _), names in zip(world.posts, world.posted, strict=True)
    }
    assert found["A"] == ("/api/v2/alerts", {"Authorization": "Bearer sender", "Content-Type": "application/json"})
    assert found["B"] == (found["A"][0], found["A"][1] | {"X-Scope-OrgID": "2"})
    assert found["C"] == ("/other/api/v2/alerts", found["A"][1])


@simulated
async def test_what_is_not_decided_any_more_when_the_answer_comes_is_let_be():
    world = World()
    sent = world.sent()
    world.decisions.clear()
    await world.forward(sent)
    assert len(world.reposter) == 0


@pytest.mark.parametrize(
    "now_decided",
    [
        pytest.param(lambda _: None, id="nothing is to be said any more"),
        pytest.param(lambda decision: replace(decision, annotations={}), id="it stays bare"),
        pytest.param(lambda decision: replace(decision, labels={"ai_severity": "critical"}), id="other labels"),
    ],
)
@simulated
async def test_what_is_decided_otherwise_meanwhile_is_not_posted(now_decided):
    world = World()
    sent = world.sent()
    await world.forward(sent)
    identity = sent.alert.identity
    world.decisions[identity] = now_decided(world.decisions[identity])
    world.reposter.text_landed(identity)
    await asyncio.sleep(1)
    assert (world.posts, world.outcomes) == ([], [])


@simulated
async def test_what_is_remembered_is_bounded_and_forgotten():
    world = World(candidates=2)
    sent = [world.sent(name) for name in "ABC"]
    await world.forward(*sent, world.sent("Long", extra="x" * (16 << 10)))
    assert len(world.reposter) == 2
    world.land(*sent)
    assert len(world.reposter._landed) == 2
    await asyncio.sleep(1)
    assert world.posted == [["A", "B"]]
    await asyncio.sleep(20)
    assert len(world.reposter) == 0
    world.reposter.resolved([sent[2].alert.identity])
    await asyncio.sleep(21)
    assert len(world.reposter) == 0
    assert (world.reposter._landed, world.reposter._resolved, world.reposter._tidy_timer) == ({}, {}, None)


@simulated
async def test_a_very_long_alert_is_not_kept():
    world = World()
    sent = world.sent(extra="x" * (16 << 10))
    await world.forward(sent)
    assert len(world.reposter) == 0


@simulated
async def test_a_bug_costs_the_text_and_nothing_else():
    world = World()
    first, second = world.sent("A"), world.sent("B")
    await world.forward(first, second)
    post, world.reposter._post = world.reposter._post, lambda *_: 1 / 0
    world.land(first)
    await asyncio.sleep(1)
    world.reposter._post = post
    await world.forward(world.sent("C"))
    world.land(second)
    await asyncio.sleep(1)
    assert world.outcomes == ["failed", "sent"]


@pytest.mark.parametrize(("takes", "outcomes"), [(0.5, ["sent"]), (9, ["failed"])])
@simulated
async def test_at_the_end_what_is_under_way_has_its_second_and_nothing_begins(takes, outcomes):
    async def stubborn(*_):
        world.posts.append(None)
        await asyncio.sleep(takes)
        return 200

    world = World()
    async with world.reposter as reposter:
        first, second = world.sent("A"), world.sent("B")
        await world.forward(first, second)
        reposter._post = stubborn
        world.land(first)
        await asyncio.sleep(0.06)
        world.land(second)
        timers = (reposter._flush_timer, reposter._tidy_timer)
        begun = world.at()
    assert world.at() - begun <= 1
    assert all(timer.cancelled() for timer in timers)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    await world.forward(world.sent("C"))
    await world.resolve(first)
    world.land(second)
    assert (reposter._flush_timer, reposter._tidy_timer) == (None, None)
    await asyncio.sleep(20)
    assert (len(world.posts), world.outcomes, len(reposter)) == (1, outcomes, 0)


def test_an_element_is_found_again_as_its_sender_wrote_it():
    elements = ['{ "labels" :{"a":"}]"} ,"x":[1.50, {}] }', "7", "{}", '{"labels":\n{"a":"ü🔥"}}']
    batch = alerts.decode((" [" + " ,\n".join(elements) + "] ").encode())
    assert [batch.text[item.start : item.end] for item in batch.items] == elements
