"""When there is no room for all, and how little room each takes."""

from dataclasses import replace
from datetime import timedelta

import pytest
from deciding import bare, firing, held, labelled, living_by, lose_claim, sweep, take_up
from simulated import Time

from proxy.decisions.decision import Decision

CAPACITY = 3


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def living(time):
    return living_by(time, CAPACITY)


@pytest.fixture
def full(living, time):
    for n in range(CAPACITY):
        alert = firing(time, f"Lives{n}")
        take_up(living, labelled(alert), alert)
    assert living.full
    return living


def test_beyond_its_capacity_a_new_alert_goes_bare_and_is_known(full, time):
    alert = firing(time, "New")
    assert take_up(full, bare(alert), alert) == bare(alert)
    assert full.seen(alert) == bare(alert)
    assert (len(full), full.labelled, alert.identity in full.identities()) == (CAPACITY + 1, CAPACITY, False)
    assert full.take_unkept(100)[0].decision.identity != alert.identity


def test_what_went_bare_stays_bare_when_there_is_room_again(full, time):
    alert = firing(time, "New")
    take_up(full, bare(alert), alert)
    for _ in range(10):
        time.passes(minutes=50)
        sweep(full)
        assert full.seen(firing(time, "New")) == bare(alert)
    assert not full.full
    time.passes(hours=3)
    assert full.seen(firing(time, "New")) is None, "it was not seen for long: another alert to everybody"


@pytest.mark.parametrize("room", [False, True], ids=["still full", "room again"])
def test_what_went_bare_stays_bare_when_a_second_post_that_was_under_way_proposes_labels(full, time, room):
    alert = firing(time, "New")
    take_up(full, bare(alert), alert)
    if room:
        full.forget(firing(time, "Lives0").identity)
    assert take_up(full, labelled(alert), alert) == bare(alert)
    assert full.seen(alert) == bare(alert)


@pytest.mark.parametrize("of", ["the store", "Alertmanager", "another proxy"])
def test_labels_that_people_were_told_of_are_taken_up_all_the_same(full, time, of):
    alert = firing(time, "Labelled")
    if of == "the store":
        full.load(held(labelled(alert)))
    elif of == "Alertmanager":
        full.restore(labelled(alert), alert)
    else:
        full.add(held(labelled(alert)), alert, kept=True)
    assert full.seen(alert) == labelled(alert)
    assert (len(full), full.labelled) == (CAPACITY + 1, CAPACITY + 1)


def test_text_alone_is_taken_up_all_the_same(full, time):
    alert = firing(time, "Text")
    annotated = Decision(alert.identity, {}, {"ai_summary": "Known."})
    full.add(held(annotated), alert, kept=True)
    assert full.seen(alert) == annotated


def test_what_alertmanager_shows_bare_goes_bare_beyond_the_capacity(full, time):
    alert = firing(time, "Bare")
    assert full.restore(bare(alert), alert).decision == bare(alert)
    assert full.seen(alert) == bare(alert)
    assert alert.identity not in full.identities()


def test_when_not_even_that_can_be_remembered_it_is_known_since_when(time):
    living = living_by(time, 1)
    first = firing(time, "First")
    take_up(living, labelled(first), first)
    for n in range(10):
        alert = firing(time, f"New{n}")
        take_up(living, bare(alert), alert)
    assert living.bare_before is None
    time.passes(minutes=1)
    one_more = firing(time, "OneMore")
    take_up(living, bare(one_more), one_more)
    assert living.bare_before == time.now
    assert living.seen(one_more) is None, "or there would be no end to the memory"


def test_alerts_of_a_class_share_one_copy_of_their_text(living, time):
    alerts = [firing(time, name) for name in "ABC"]
    first, *others = [take_up(living, labelled(alert), alert) for alert in alerts]
    assert all(d.labels is first.labels and d.annotations is first.annotations for d in others)
    texts = [
        living.improve(alert.identity, lambda d: Decision(d.identity, dict(d.labels), {"t": "x"})) for alert in alerts
    ]
    assert all(texts)
    first, *others = [living.seen(alert) for alert in alerts]
    assert all(d.labels is first.labels and d.annotations is first.annotations for d in others)


def test_what_was_loaded_and_what_was_handed_over_share_it_too(living, time):
    one, other, third = (firing(time, name) for name in "ABC")
    living.load(held(labelled(one)))
    living.restore(labelled(other), other)
    take_up(living, labelled(third, "info"), third)
    lose_claim(living, held(labelled(third)))
    labels = [living.seen(alert).labels for alert in (one, other, third)]
    assert labels[0] is labels[1] is labels[2]


def test_a_sweep_lets_others_run_in_between(living, time):
    for n in range(CAPACITY):
        living.load(held(labelled(firing(time, f"A{n}"))))
    time.passes(seconds=timedelta(hours=2).total_seconds())
    assert sum(1 for _ in living.sweep(1)) == CAPACITY
    assert len(living) == 0


def test_an_alert_whose_end_is_far_away_stays_bare_however_rarely_it_is_sent(full, time):
    alert = replace(firing(time, "New"), ends_at=time.now + timedelta(hours=24))
    take_up(full, bare(alert), alert)
    time.passes(hours=5)
    assert full.seen(alert) == bare(alert)


def test_an_alert_whose_end_moves_on_each_time_stays_bare(full, time):
    take_up(full, bare(firing(time, "New")), firing(time, "New"))
    for _ in range(10):
        alert = replace(firing(time, "New"), ends_at=time.now + timedelta(hours=24))
        assert full.seen(alert) == bare(alert)
        time.passes(hours=20)
        sweep(full)
    assert not full.full
    time.passes(hours=24)
    assert full.seen(firing(time, "New")) is None
    assert len(full) == 0


def test_of_two_posts_that_were_under_way_at_once_the_later_end_counts(full, time):
    alert = firing(time, "New")
    take_up(full, bare(alert), alert)
    take_up(full, labelled(alert), replace(alert, ends_at=time.now + timedelta(hours=24)))
    time.passes(hours=23)
    assert full.seen(alert) == bare(alert)
