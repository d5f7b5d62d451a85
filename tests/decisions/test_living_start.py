"""What is known at a start: from the store, from Alertmanager, and what was decided before either was asked."""

from dataclasses import replace
from datetime import timedelta

import pytest
from deciding import bare, firing, held, labelled, living_by, resolved, take_up, tell_store
from simulated import Time


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def living(time):
    return living_by(time)


def test_what_alertmanager_shows_replaces_what_was_decided_without_knowing(living, time):
    alert = firing(time)
    take_up(living, bare(alert), alert, provisional=True)
    assert living.provisional(alert.identity) == bare(alert)
    assert living.restore(labelled(alert), alert).decision == labelled(alert)
    assert (living.labelled, living.provisional(alert.identity)) == (1, None)
    again = living.restore(labelled(alert, "info"), alert)
    assert again.decision == labelled(alert), "once, and never what was decided knowing"


def test_what_alertmanager_shows_replaces_what_was_loaded(living, time):
    alert = firing(time)
    living.load(held(labelled(alert, "info")))
    assert living.before_start(alert.identity) == labelled(alert, "info").labels
    living.restore(labelled(alert), alert)
    assert (living.seen(alert), living.before_start(alert.identity)) == (labelled(alert), None)


def test_what_replaces_another_is_a_life_of_its_own_and_says_so_to_the_store(living, time):
    alert = firing(time)
    living.load(held(labelled(alert, "info"), life=7))
    restored = living.restore(bare(alert), alert)
    assert (restored.replaces, restored.life == 7) == (7, False)
    [told] = living.take_unkept(100)
    assert (told.replaces, told.decision) == (7, bare(alert))
    assert living.labelled == 0


def test_what_alertmanager_confirms_keeps_its_life_and_its_text(living, time):
    alert = firing(time)
    known = replace(labelled(alert), annotations={"ai_summary": "Ours."})
    living.load(held(known, life=7))
    assert living.restore(labelled(alert), alert).life == 7
    assert living.seen(alert) == known


def test_what_was_decided_after_the_recovery_stands_against_alertmanager(living, time):
    alert = firing(time)
    take_up(living, labelled(alert), alert)
    assert living.restore(labelled(alert, "info"), alert).decision == labelled(alert)
    assert living.seen(alert) == labelled(alert)


@pytest.mark.parametrize("known", ["loaded", "provisional"])
def test_once_settled_everything_stands(living, time, known):
    alert = firing(time)
    if known == "loaded":
        living.load(held(labelled(alert)))
    else:
        take_up(living, labelled(alert), alert, provisional=True)
    living.settle()
    living.restore(labelled(alert, "info"), alert)
    assert living.seen(alert) == labelled(alert)
    assert (living.provisional(alert.identity), living.before_start(alert.identity)) == (None, None)


def test_what_was_decided_already_is_not_replaced_by_what_is_loaded(living, time):
    alert = firing(time)
    take_up(living, labelled(alert), alert)
    living.load(held(labelled(alert, "info")))
    assert living.seen(alert) == labelled(alert)
    assert living.before_start(alert.identity) is None


def test_what_ended_before_the_recovery_is_neither_loaded_nor_provisional_any_more(living, time):
    loaded, provisional = firing(time, "Loaded"), firing(time, "Provisional")
    living.load(held(labelled(loaded)))
    take_up(living, labelled(provisional), provisional, provisional=True)
    time.passes(hours=2)
    for alert in (loaded, provisional):
        assert living.seen(alert) is None
        take_up(living, labelled(alert, "info"), alert)
    assert living.before_start(loaded.identity) is None
    assert living.provisional(provisional.identity) is None


def test_what_alertmanager_shows_counts_as_a_sighting(living, time):
    alert = firing(time)
    living.load(held(labelled(alert), left=0))
    living.restore(labelled(alert), alert)
    time.passes(minutes=60)
    assert living.seen(firing(time)) == labelled(alert)


def test_nobody_has_heard_of_a_stranger(living, time):
    stranger = firing(time).identity
    assert (living.before_start(stranger), living.provisional(stranger)) == (None, None)


def test_what_is_loaded_and_seen_as_it_was_is_not_written_again(living, time):
    """After a start the store would get all it has just given."""
    alert = firing(time)
    living.load(held(labelled(alert)))
    living.restore(labelled(alert), alert)
    living.seen(firing(time))
    assert living.unkept == 0
    time.passes(seconds=1)
    living.seen(resolved(alert, time))
    assert tell_store(living)[0].resolved_at == (alert.starts_at + timedelta(seconds=1)).timestamp()
