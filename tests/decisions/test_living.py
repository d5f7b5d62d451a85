from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from proxy.alert import Alert
from proxy.decisions.decision import Decision
from proxy.decisions.living import Living

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


class Time:
    """A monotonic clock and a wall clock that go together unless one is set."""

    def __init__(self) -> None:
        self.monotonic = 1000.0
        self.now = NOW

    def passes(self, **by: float) -> None:
        self.monotonic += timedelta(**by).total_seconds()
        self.now += timedelta(**by)


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def living(time):
    return Living(monotonic=lambda: time.monotonic, now=lambda: time.now)


def firing(time, starts_at=NOW):
    return Alert({"alertname": "A"}, starts_at=starts_at, ends_at=time.now + timedelta(minutes=4))


def resolved(alert, time):
    return replace(alert, ends_at=time.now)


def labelled(alert, severity="critical"):
    return Decision(alert.identity, {"ai_severity": severity}, {"ai_source": "llm"})


def test_the_first_decision_wins(living, time):
    alert = firing(time)
    first = living.add(labelled(alert, "critical"), alert)
    assert living.add(labelled(alert, "info"), alert) is first
    assert living.seen(alert) is first
    assert (len(living), living.labelled) == (1, 1)


def test_bare_is_a_decision(living, time):
    alert = firing(time)
    living.add(Decision(alert.identity), alert)
    assert living.add(labelled(alert), alert).labels == {}
    assert (len(living), living.labelled) == (1, 0)


def test_it_lives_as_long_as_the_alert_is_seen(living, time):
    alert = firing(time)
    decision = living.add(labelled(alert), alert)
    for _ in range(24 * 20):
        time.passes(minutes=59)
        living.expire()
        assert living.seen(firing(time)) is decision


@pytest.mark.parametrize(
    ("ends_in", "lives"),
    [
        pytest.param(timedelta(minutes=4), timedelta(minutes=64), id="an hour after endsAt"),
        pytest.param(timedelta(), timedelta(hours=1), id="an hour after the last sighting"),
        pytest.param(timedelta(days=3), timedelta(days=3, hours=1), id="a far endsAt"),
        pytest.param(timedelta(days=3000), timedelta(days=7), id="seven days at most"),
    ],
)
def test_it_ends_after_the_last_sign_of_life(living, time, ends_in, lives):
    alert = replace(firing(time), ends_at=NOW + ends_in)
    living.add(labelled(alert), alert)
    time.passes(seconds=lives.total_seconds() - 1)
    living.expire()
    assert len(living) == 1
    time.passes(seconds=2)
    living.expire()
    assert (len(living), living.labelled, living.take_ended()) == (0, 0, [alert.identity])


def test_what_is_over_is_not_found_even_before_it_is_cleared_away(living, time):
    alert = firing(time)
    living.add(labelled(alert), alert)
    time.passes(hours=2)
    assert living.seen(firing(time)) is None
    assert living.take_ended() == [alert.identity]
    assert living.take_ended() == []


@pytest.mark.parametrize("jump", [timedelta(hours=1), timedelta(hours=-1)], ids=["ahead", "back"])
def test_a_jump_of_the_wall_clock_ends_nothing(living, time, jump):
    alert = firing(time)
    decision = living.add(labelled(alert), alert)
    time.now += jump
    living.expire()
    assert living.seen(alert) is decision
    time.monotonic += 1800
    living.expire()
    assert living.seen(alert) is decision


def test_a_resolve_and_its_repetitions_use_the_decision(living, time):
    alert = firing(time)
    decision = living.add(labelled(alert), alert)
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
    living.add(labelled(alert), alert)
    living.seen(resolved(alert, time))
    anew = time.now + after
    time.passes(seconds=after.total_seconds())
    assert (living.seen(firing(time, starts_at=anew)) is not None) is kept


def test_a_new_startsat_without_a_resolve_is_the_same_alert(living, time):
    alert = firing(time)
    decision = living.add(labelled(alert), alert)
    time.passes(minutes=50)
    assert living.seen(firing(time, starts_at=time.now)) is decision


def test_text_may_improve_and_labels_may_not(living, time):
    alert = firing(time)
    living.add(labelled(alert), alert)
    living.improve(alert.identity, lambda d: replace(d, annotations={"ai_summary": "better"}))
    assert living.seen(alert).annotations == {"ai_summary": "better"}
    with pytest.raises(ValueError, match="never change"):
        living.improve(alert.identity, lambda d: replace(d, labels={"ai_severity": "info"}))
    assert living.seen(alert).labels == {"ai_severity": "critical"}


def test_improving_what_has_ended_does_nothing(living, time):
    living.improve(firing(time).identity, lambda d: pytest.fail("asked"))


def test_deciding_again_what_is_decided_counts_as_a_sighting(living, time):
    alert = firing(time)
    decision = living.add(labelled(alert), alert)
    time.passes(minutes=50)
    living.add(labelled(alert, "info"), firing(time))
    time.passes(minutes=60)
    assert living.seen(firing(time)) is decision


def test_deciding_again_with_a_resolve_makes_it_known_as_over(living, time):
    alert = firing(time)
    living.add(labelled(alert), alert)
    over = resolved(alert, time)
    living.add(labelled(alert), over)
    assert not living.resolve_is_news(over)


def test_what_is_over_never_counts_as_firing_anew(living, time):
    alert = firing(time)
    decision = living.add(labelled(alert), alert)
    living.seen(resolved(alert, time))
    time.passes(minutes=20)
    flapped = firing(time, starts_at=time.now - timedelta(minutes=1))
    assert living.seen(resolved(flapped, time)) is decision


def test_a_resolve_is_news_once_for_each_time_it_fired(living, time):
    alert = firing(time)
    living.add(labelled(alert), alert)
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
    living.add(Decision(over.identity), over)
    assert not living.resolve_is_news(over)


def test_a_resolve_of_one_sender_does_not_end_what_another_still_fires(living, time):
    alert = firing(time)
    decision = living.add(labelled(alert), alert)
    living.seen(replace(alert, ends_at=time.now - timedelta(minutes=14, seconds=59)))  # repeated by the one
    time.passes(seconds=2)
    living.seen(firing(time))  # the other
    living.seen(replace(alert, ends_at=NOW - timedelta(minutes=14, seconds=59)))
    assert living.seen(firing(time, starts_at=time.now)) is decision


def test_what_alertmanager_shows_replaces_what_was_decided_without_knowing(living, time):
    alert = firing(time)
    living.add(Decision(alert.identity), alert, provisional=True)
    assert living.provisional(alert.identity) == Decision(alert.identity)
    assert living.restore(labelled(alert), alert) == labelled(alert)
    assert (living.labelled, living.provisional(alert.identity)) == (1, None)
    assert living.restore(labelled(alert, "info"), alert) == labelled(alert), "once, and never what was decided knowing"
