"""What the store is told of the hot copy, and whose labels give way to whose."""

from dataclasses import replace
from datetime import timedelta

import pytest
from deciding import (
    added,
    bare,
    firing,
    held,
    labelled,
    living_by,
    lose_claim,
    resolved,
    sweep,
    take_up,
    tell_store,
)
from simulated import NOW, Time

from proxy.decisions.living import HANDING_OVER, STALE


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def living(time):
    return living_by(time)


def test_what_is_new_is_told_once_and_with_all_there_is_to_know(living, time):
    alert = firing(time)
    take_up(living, labelled(alert), alert)
    assert living.unkept == 1
    [told] = tell_store(living)
    assert told.decision == labelled(alert)
    assert told.left == timedelta(minutes=64).total_seconds() + STALE
    assert (told.original, told.resolved_at) == ('{"alertname":"A"}', None)
    assert told.fires_until == alert.ends_at.timestamp()
    assert (living.unkept, living.take_unkept(10)) == (0, [])


def test_whoever_waits_for_something_to_tell_is_woken(living, time):
    woken = []
    living.on_unkept = lambda: woken.append(living.unkept)
    take_up(living, labelled(firing(time)), firing(time))
    assert woken == [1]


def test_at_most_as_many_are_taken_as_were_asked_for(living, time):
    for n in range(5):
        take_up(living, labelled(firing(time, f"A{n}")), firing(time, f"A{n}"))
    assert [len(living.take_unkept(2)) for _ in range(4)] == [2, 2, 1, 0]


def test_what_could_not_be_told_is_told_again(living, time):
    alert = firing(time)
    take_up(living, labelled(alert), alert)
    taken = living.take_unkept(10)
    living.not_kept(taken)
    assert [kept.decision for kept in tell_store(living)] == [labelled(alert)]


def test_what_has_ended_is_not_told_any_more(living, time):
    alert = firing(time)
    take_up(living, labelled(alert), alert)
    taken = living.take_unkept(10)
    time.passes(hours=2)
    sweep(living)
    living.not_kept(taken)
    assert living.take_unkept(10) == []


def test_an_alert_that_goes_on_is_told_again_only_when_the_stores_end_comes_before_its_own(living, time):
    """For an hour the store has longer left than the alert, then it is told; always in time."""
    take_up(living, labelled(firing(time)), firing(time))
    [told] = tell_store(living)
    ends, writes, minutes = time.monotonic + told.left, 0, 24 * 60
    for _ in range(minutes):
        time.passes(minutes=1)
        living.seen(firing(time))
        sweep(living)
        for told in tell_store(living):
            ends, writes = time.monotonic + told.left, writes + 1
        own = time.monotonic + timedelta(minutes=64).total_seconds()
        assert ends >= own
    assert writes <= minutes * 60 / STALE


def test_nothing_is_written_for_an_alert_that_was_not_seen(living, time):
    take_up(living, labelled(firing(time)), firing(time))
    tell_store(living)
    for _ in range(60):
        time.passes(minutes=1)
        sweep(living)
    assert (len(living), living.unkept) == (1, 0)


def test_what_the_store_gave_is_not_written_back(living, time):
    """Every claim would be followed by another one."""
    alert = firing(time)
    living.add(held(labelled(alert), left=timedelta(minutes=74).total_seconds()), alert, kept=True)
    living.seen(firing(time))
    sweep(living)
    assert living.unkept == 0


@pytest.mark.parametrize(
    "news",
    [
        pytest.param(lambda time: resolved(firing(time), time), id="a resolve"),
        pytest.param(lambda time: firing(time, begun=time.now), id="a new startsAt"),
    ],
)
def test_a_turn_of_events_is_told(living, time, news):
    take_up(living, labelled(firing(time)), firing(time))
    tell_store(living)
    time.passes(minutes=1)
    happened = news(time)
    living.seen(happened)
    assert len(tell_store(living)) == 1
    living.seen(happened)
    assert living.unkept == 0, "its repetition is none"


def test_two_prometheus_that_each_have_their_own_startsat_are_no_turn_of_events(living, time):
    one, other = NOW, NOW + timedelta(seconds=7)
    take_up(living, labelled(firing(time)), firing(time, begun=one))
    living.seen(firing(time, begun=other))
    tell_store(living)
    for begun in (one, other, one, other):
        time.passes(seconds=30)
        living.seen(firing(time, begun=begun))
    assert living.unkept == 0


def test_better_text_is_told(living, time):
    alert = firing(time)
    take_up(living, labelled(alert), alert)
    tell_store(living)
    living.improve(alert.identity, lambda d: replace(d, annotations={"ai_summary": "better"}))
    assert tell_store(living)[0].decision.annotations == {"ai_summary": "better"}


def test_a_store_that_has_lost_everything_is_told_everything(living, time):
    alerts = [firing(time, name) for name in "ABC"]
    for alert in alerts:
        take_up(living, labelled(alert), alert)
    tell_store(living)
    living.nothing_is_kept()
    assert {kept.decision.identity for kept in tell_store(living)} == {alert.identity for alert in alerts}


def test_the_life_that_the_store_knew_first_is_gone_by(living, time):
    alert = firing(time)
    take_up(living, labelled(alert), alert)
    [told] = living.take_unkept(1)
    living.kept(told, replace(told, life=99))
    living.seen(resolved(alert, time))
    assert living.take_unkept(1)[0].life == 99


def test_what_the_store_says_of_a_life_that_has_ended_is_not_taken_for_the_new_one(living, time):
    alert = firing(time)
    take_up(living, labelled(alert), alert)
    [told] = living.take_unkept(1)
    living.seen(resolved(alert, time))
    time.passes(minutes=16)
    anew = firing(time, begun=time.now)
    assert living.seen(anew) is None
    take_up(living, labelled(anew, "info"), anew)
    living.kept(told, told)
    [new] = living.take_unkept(1)
    assert (new.replaces, new.life == told.life) == (told.life, False)


# Handing over


@pytest.mark.parametrize(("ours", "theirs"), [(4, 360), (360, 4), (360, None)])
def test_of_two_lives_of_one_alert_it_fires_until_the_later_end(living, time, ours, theirs):
    """Each proxy may have heard of it from another Prometheus, with another endsAt; in minutes from now."""
    alert = replace(firing(time), ends_at=time.now + timedelta(minutes=ours))
    take_up(living, labelled(alert), alert)
    [told] = living.take_unkept(1)
    until = (time.now + timedelta(minutes=theirs)).timestamp() if theirs else None
    living.kept(told, held(labelled(alert), life=99, fires_until=until))
    [told] = living.take_unkept(1)
    assert told.fires_until == (time.now + timedelta(minutes=360)).timestamp()
    living.seen(resolved(alert, time))
    time.passes(minutes=20)
    assert living.seen(firing(time, begun=time.now)) == labelled(alert), "it has not ended everywhere"


def test_an_alert_goes_on_with_the_labels_that_came_first_and_its_own_are_to_be_ended(living, time):
    alert = firing(time)
    take_up(living, labelled(alert, "info"), alert)
    lose_claim(living, held(labelled(alert), life=99))
    assert living.seen(alert) == labelled(alert)
    assert living.former(alert.identity) == (added("info"),)
    assert (living.handing_over, living.labelled) == (1, 1)
    living.handed_over(alert.identity, living.former(alert.identity))
    assert (living.former(alert.identity), living.handing_over) == ((), 0)


def test_to_go_bare_is_a_handover_like_any_other(living, time):
    alert = firing(time)
    take_up(living, labelled(alert, "info"), alert)
    lose_claim(living, held(bare(alert)))
    assert (living.seen(alert), living.labelled) == (bare(alert), 0)
    assert living.former(alert.identity) == (added("info"),)


def test_the_same_labels_are_no_handover(living, time):
    alert = firing(time)
    take_up(living, labelled(alert), alert)
    lose_claim(living, held(labelled(alert), life=99))
    assert (living.handing_over, living.former(alert.identity)) == (0, ())


def test_what_was_handed_over_twice_has_two_ends_and_never_that_of_its_own_labels(living, time):
    alert = firing(time)
    take_up(living, labelled(alert, "info"), alert)
    lose_claim(living, held(labelled(alert, "warning")))
    lose_claim(living, held(labelled(alert, "critical")))
    assert living.former(alert.identity) == (added("info"), added("warning"))
    lose_claim(living, held(labelled(alert, "info")))
    assert living.former(alert.identity) == (added("warning"), added("critical"))


def test_whoever_is_never_sent_again_is_not_waited_for(living, time):
    """Alertmanager has ended it by itself."""
    alert = firing(time)
    take_up(living, labelled(alert, "info"), alert)
    lose_claim(living, held(labelled(alert)))
    time.passes(seconds=HANDING_OVER - 1)
    sweep(living)
    assert living.handing_over == 1
    time.passes(seconds=2)
    sweep(living)
    assert living.handing_over == 0


def test_a_handover_of_what_has_ended_is_none(living, time):
    lose_claim(living, held(labelled(firing(time))))
    assert (len(living), living.handing_over) == (0, 0)


def test_a_claim_that_was_made_for_a_life_that_has_ended_does_not_relabel_the_new_one(living, time):
    alert = firing(time)
    take_up(living, labelled(alert), alert)
    [told] = living.take_unkept(1)
    living.seen(resolved(alert, time))
    time.passes(minutes=16)
    anew = firing(time, begun=time.now)
    assert living.seen(anew) is None
    take_up(living, labelled(anew, "info"), anew)
    living.hand_over(told, held(labelled(alert, "warning"), life=99))
    assert living.seen(anew) == labelled(anew, "info")
    assert living.former(anew.identity) == ()


def test_after_a_handover_the_store_needs_no_telling(living, time):
    alert = firing(time)
    take_up(living, labelled(alert, "info"), alert)
    living.take_unkept(1)
    lose_claim(living, held(labelled(alert), life=99))
    sweep(living)
    assert living.unkept == 0
    living.seen(resolved(alert, time))
    [told] = living.take_unkept(1)
    assert (told.life, told.replaces) == (99, 0)


@pytest.mark.parametrize("of", [labelled, bare], ids=["labelled", "bare"])
def test_a_forgotten_alert_is_decided_anew_and_what_it_had_is_to_be_ended(living, time, of):
    alert = firing(time)
    take_up(living, of(alert), alert)
    assert living.forget(alert.identity)
    assert (living.seen(alert), living.labelled, living.unkept) == (None, 0, 0)
    assert living.former(alert.identity) == (of(alert).labels,)
    take_up(living, labelled(alert, "info"), alert)
    assert living.former(alert.identity) == (of(alert).labels,)


def test_an_alert_that_gets_again_what_it_had_is_not_ended(living, time):
    alert = firing(time)
    take_up(living, labelled(alert), alert)
    living.forget(alert.identity)
    assert living.handing_over == 1
    take_up(living, labelled(alert), alert)
    assert (living.former(alert.identity), living.handing_over) == ((), 0)


def test_whoever_is_not_known_cannot_be_forgotten(living, time):
    assert not living.forget(firing(time).identity)
    assert living.handing_over == 0
