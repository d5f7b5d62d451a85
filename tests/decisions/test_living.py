"""How long a decision lives, and when an alert is another one than before."""

from dataclasses import replace
from datetime import timedelta

import pytest
from deciding import bare, firing, held, labelled, living_by, resolved, sweep, take_up
from simulated import NOW, Time

from proxy.decisions.living import AFTER_LAST_SIGN, LOADED


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def living(time):
    return living_by(time)


def test_the_first_decision_wins(living, time):
    alert = firing(time)
    first = take_up(living, labelled(alert, "critical"), alert)
    assert take_up(living, labelled(alert, "info"), alert) is first
    assert living.seen(alert) is first
    assert (len(living), living.labelled) == (1, 1)


def test_bare_is_a_decision(living, time):
    alert = firing(time)
    take_up(living, bare(alert), alert)
    assert take_up(living, labelled(alert), alert).labels == {}
    assert (len(living), living.labelled) == (1, 0)


def test_it_lives_as_long_as_the_alert_is_seen(living, time):
    alert = firing(time)
    decision = take_up(living, labelled(alert), alert)
    for _ in range(24 * 20):
        time.passes(minutes=59)
        sweep(living)
        assert living.seen(firing(time)) is decision


@pytest.mark.parametrize(
    ("ends_in", "lives"),
    [
        pytest.param(timedelta(minutes=4), timedelta(minutes=64), id="an hour after endsAt"),
        pytest.param(timedelta(), timedelta(hours=1), id="an hour after the last sighting"),
        pytest.param(timedelta(days=-2), timedelta(hours=1), id="an hour after a late repetition of a resolve"),
        pytest.param(timedelta(days=3), timedelta(days=3, hours=1), id="a far endsAt"),
        pytest.param(timedelta(days=3000), timedelta(days=7), id="seven days at most"),
    ],
)
def test_it_ends_after_the_last_sign_of_life(living, time, ends_in, lives):
    alert = replace(firing(time), ends_at=NOW + ends_in)
    take_up(living, labelled(alert), alert)
    time.passes(seconds=lives.total_seconds() - 1)
    sweep(living)
    assert (len(living), living.labelled) == (1, 1)
    time.passes(seconds=2)
    sweep(living)
    assert (len(living), living.labelled, living.identities()) == (0, 0, [])


def test_an_alert_that_does_not_say_when_it_ends_lives_an_hour(living, time):
    alert = replace(firing(time), ends_at=None)
    decision = take_up(living, labelled(alert), alert)
    time.passes(minutes=59)
    assert living.seen(alert) is decision
    time.passes(minutes=61)
    assert living.seen(alert) is None


def test_what_is_over_is_not_found_even_before_it_is_cleared_away(living, time):
    alert = firing(time)
    take_up(living, labelled(alert), alert)
    time.passes(hours=2)
    assert living.seen(firing(time)) is None
    assert (len(living), living.labelled) == (0, 0)


@pytest.mark.parametrize("jump", [timedelta(hours=1), timedelta(hours=-1)], ids=["ahead", "back"])
def test_a_jump_of_the_wall_clock_ends_nothing_and_changes_no_labels(living, time, jump):
    alert = firing(time)
    decision = take_up(living, labelled(alert), alert)
    time.now += jump
    for _ in range(6):
        sweep(living)
        assert living.seen(alert) is decision, "by the sender's clock it ends when it did"
        time.monotonic += 1800
    time.now -= jump
    assert living.seen(firing(time)) is decision


@pytest.mark.parametrize("jump", [timedelta(hours=1), timedelta(hours=-1)], ids=["ahead", "back"])
def test_after_a_jump_of_the_wall_clock_what_is_not_seen_ends_in_time(living, time, jump):
    alert = firing(time)
    take_up(living, labelled(alert), alert)
    time.now += jump
    time.monotonic += timedelta(minutes=64, seconds=1).total_seconds()
    sweep(living)
    assert len(living) == 0


def test_a_loaded_decision_lives_long_enough_for_the_next_resend(living, time):
    alert = firing(time)
    living.load(held(labelled(alert), left=-5))
    time.passes(seconds=LOADED - 1)
    sweep(living)
    assert living.seen(firing(time)) == labelled(alert)
    time.passes(minutes=50)
    assert living.seen(firing(time)) == labelled(alert), "once it was seen it lives like any other"


def test_a_loaded_decision_that_has_more_time_left_keeps_it(living, time):
    alert = firing(time)
    living.load(held(labelled(alert), left=timedelta(days=2).total_seconds()))
    time.passes(hours=47)
    sweep(living)
    assert living.seen(firing(time)) == labelled(alert)


def test_a_resolve_and_its_repetitions_use_the_decision(living, time):
    alert = firing(time)
    decision = take_up(living, labelled(alert), alert)
    end = resolved(alert, time)
    for _ in range(12):
        time.passes(seconds=75)
        assert living.seen(end) is decision


@pytest.mark.parametrize(
    ("after", "kept"),
    [
        pytest.param(timedelta(minutes=1), True, id="flapping keeps the labels"),
        pytest.param(timedelta(minutes=15), True, id="as long as Prometheus repeats the resolve"),
        pytest.param(timedelta(minutes=16), False, id="later it is decided anew"),
    ],
)
def test_firing_anew_after_a_resolve(living, time, after, kept):
    alert = firing(time)
    take_up(living, labelled(alert), alert)
    living.seen(resolved(alert, time))
    anew = time.now + after
    time.passes(seconds=after.total_seconds())
    assert (living.seen(firing(time, begun=anew)) is not None) is kept


def test_a_new_life_names_the_one_that_it_replaces(living, time):
    alert = firing(time)
    old = living.candidate(labelled(alert), alert)
    living.add(old, alert)
    living.seen(resolved(alert, time))
    time.passes(minutes=16)
    anew = firing(time, begun=time.now)
    assert living.seen(anew) is None
    assert not living.holds(old, anew), "what the store still has is of the life before"
    new = living.candidate(labelled(anew, "info"), anew)
    assert (new.replaces, new.life == old.life) == (old.life, False)
    living.add(new, anew)
    assert living.candidate(labelled(anew), anew).replaces == 0, "that was for the first of the new life"


def test_a_life_that_the_store_never_heard_of_replaces_none(living, time):
    """The store was away all the while: it still holds the first of the three."""
    alert = firing(time)
    take_up(living, labelled(alert), alert)
    [first] = living.take_unkept(1)
    living.kept(first, first)
    for severity in ("warning", "info"):
        living.seen(resolved(firing(time, begun=time.now), time))
        time.passes(minutes=16)
        anew = firing(time, begun=time.now)
        assert living.seen(anew) is None
        last = living.candidate(labelled(anew, severity), anew)
        living.add(last, anew)
    assert last.replaces == first.life


def test_a_resolve_that_was_seen_before_the_restart_counts(living, time):
    alert = firing(time)
    living.load(held(labelled(alert), resolved_at=(NOW - timedelta(minutes=16)).timestamp()))
    assert living.seen(firing(time, begun=NOW)) is None


def test_a_new_startsat_without_a_resolve_is_the_same_alert(living, time):
    alert = firing(time)
    decision = take_up(living, labelled(alert), alert)
    time.passes(minutes=50)
    assert living.seen(firing(time, begun=time.now)) is decision


def test_text_may_improve_and_labels_may_not(living, time):
    alert = firing(time)
    take_up(living, labelled(alert), alert)
    assert living.improve(alert.identity, lambda d: replace(d, annotations={"ai_summary": "better"}))
    assert living.seen(alert).annotations == {"ai_summary": "better"}
    with pytest.raises(ValueError, match="never change"):
        living.improve(alert.identity, lambda d: replace(d, labels={"ai_severity": "info"}))
    assert living.seen(alert).labels == labelled(alert).labels


def test_improving_what_has_ended_does_nothing(living, time):
    assert not living.improve(firing(time).identity, lambda d: pytest.fail("asked"))


def test_deciding_again_what_is_decided_counts_as_a_sighting(living, time):
    alert = firing(time)
    decision = take_up(living, labelled(alert), alert)
    time.passes(minutes=50)
    take_up(living, labelled(alert, "info"), firing(time))
    time.passes(minutes=60)
    assert living.seen(firing(time)) is decision


def test_deciding_again_with_a_resolve_makes_it_known_as_over(living, time):
    alert = firing(time)
    take_up(living, labelled(alert), alert)
    over = resolved(alert, time)
    take_up(living, labelled(alert), over)
    assert not living.resolve_is_news(over)


def test_what_is_over_never_counts_as_firing_anew(living, time):
    alert = firing(time)
    decision = take_up(living, labelled(alert), alert)
    living.seen(resolved(alert, time))
    time.passes(minutes=20)
    flapped = firing(time, begun=time.now - timedelta(minutes=1))
    assert living.seen(resolved(flapped, time)) is decision


def test_a_resolve_is_news_once_for_each_time_it_fired(living, time):
    alert = firing(time)
    take_up(living, labelled(alert), alert)
    over = resolved(alert, time)
    assert not living.resolve_is_news(alert), "it fires"
    for _ in range(2):
        assert living.resolve_is_news(over)
        living.seen(over)
        assert not living.resolve_is_news(over), "a repetition"
        living.seen(firing(time))


def test_a_resolve_nobody_knows_is_news_once(living, time):
    over = resolved(firing(time), time)
    assert living.resolve_is_news(over)
    take_up(living, bare(over), over)
    assert not living.resolve_is_news(over)


def test_a_resolve_of_one_sender_does_not_end_what_another_still_fires(living, time):
    alert = firing(time)
    decision = take_up(living, labelled(alert), alert)
    living.seen(replace(alert, ends_at=time.now - timedelta(minutes=14, seconds=59)))  # repeated by the one
    time.passes(seconds=2)
    living.seen(firing(time))  # the other
    living.seen(replace(alert, ends_at=NOW - timedelta(minutes=14, seconds=59)))
    assert living.seen(firing(time, begun=time.now)) is decision


def test_what_is_listed_is_what_people_ask_for(living, time):
    alert = firing(time)
    take_up(living, labelled(alert), alert)
    time.passes(minutes=4)
    living.seen(resolved(alert, time))
    listed = living.listed(alert.identity)
    assert (listed.decision, listed.original, listed.resolved_at) == (labelled(alert), alert.labels, time.now)
    assert (listed.left, listed.former) == (AFTER_LAST_SIGN.total_seconds(), ())
    assert living.listed(firing(time, "B").identity) is None
