from datetime import timedelta

import pytest
from simulated import NOW

from proxy.alert import Alert
from proxy.decisions.canary import Canary
from proxy.decisions.decision import Names, Treatment
from proxy.decisions.rollout import Rollout
from proxy.matchers import parse_matchers
from proxy.policy import Mode

SKIP = [parse_matchers('alertname=~"Watchdog|InfoInhibitor"'), parse_matchers("team=lab, env=test")]
DB = Canary(matchers=("team=db",))


def alert(starts_at=NOW, **labels):
    return Alert({"alertname": "A", **labels}, starts_at=starts_at)


def rollout(mode, *, canary=None, since=NOW, **options):
    made = Rollout(mode, names=Names(), skip=SKIP, **options)
    made.apply(mode, canary or Canary(), since)
    return made


@pytest.mark.parametrize(
    ("mode", "treatment"),
    [
        (Mode.TRANSPARENT, Treatment.PLAIN),
        (Mode.ENRICHED, Treatment.LABEL),
        (Mode.TRANSPARENT_WITH_RECOMMENDATIONS, Treatment.ANNOTATE),
    ],
)
def test_the_mode_decides_the_treatment(mode, treatment):
    assert rollout(mode).treatment(alert()) is treatment


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize(
    "labels",
    [
        pytest.param({"alertname": "Watchdog"}, id="skipped by name"),
        pytest.param({"team": "lab", "env": "test"}, id="skipped by all of several matchers"),
        pytest.param({"ai_severity": "critical"}, id="brings a label of our name"),
        pytest.param({"ai_category": "x"}, id="brings the other label of our name"),
    ],
)
def test_some_are_left_alone_in_every_mode(mode, labels):
    assert rollout(mode).treatment(alert(**labels)) is Treatment.PLAIN


def test_one_of_several_matchers_is_not_enough_to_skip():
    assert rollout(Mode.ENRICHED).treatment(alert(team="lab")) is Treatment.LABEL


@pytest.mark.parametrize(
    ("mode", "treatment"),
    [(Mode.ENRICHED, Treatment.LABEL), (Mode.TRANSPARENT_WITH_RECOMMENDATIONS, Treatment.ANNOTATE)],
)
def test_only_the_canary_takes_part(mode, treatment):
    made = rollout(mode, canary=DB)
    assert (made.treatment(alert(team="db")), made.treatment(alert())) == (treatment, Treatment.PLAIN)


@pytest.mark.parametrize(
    ("mode", "treatment"),
    [(Mode.ENRICHED, Treatment.PLAIN), (Mode.TRANSPARENT_WITH_RECOMMENDATIONS, Treatment.ANNOTATE)],
)
def test_what_fired_before_labelling_began_gets_no_labels(mode, treatment):
    before = NOW - timedelta(milliseconds=1)
    assert rollout(mode).treatment(alert(before)) is treatment


@pytest.mark.parametrize(
    ("mode", "treatment"),
    [(Mode.ENRICHED, Treatment.PLAIN), (Mode.TRANSPARENT_WITH_RECOMMENDATIONS, Treatment.ANNOTATE)],
)
def test_what_fired_when_not_all_that_went_bare_were_remembered_gets_no_labels(mode, treatment):
    lost_at = [None]
    made = rollout(mode, bare_before=lambda: lost_at[0])
    lost_at[0] = NOW + timedelta(hours=1)
    assert made.treatment(alert(NOW + timedelta(minutes=59))) is treatment
    assert made.treatment(alert(NOW + timedelta(minutes=61))) is not Treatment.PLAIN


def test_an_alert_that_does_not_say_when_it_began_begins_now():
    assert rollout(Mode.ENRICHED).treatment(alert(None)) is Treatment.LABEL


def test_before_it_is_known_since_when_is_labelled_nothing_is():
    assert Rollout(Mode.ENRICHED, names=Names()).treatment(alert()) is Treatment.PLAIN


def test_labelling_that_is_still_to_begin_is_not_labelling():
    """A switch that is over in an hour: until then nothing is labelled, whatever comes after."""
    made = rollout(Mode.TRANSPARENT_WITH_RECOMMENDATIONS, since=NOW + timedelta(hours=1))
    assert made.labelling_since is None
    assert made.treatment(alert(NOW + timedelta(hours=2))) is Treatment.ANNOTATE


def test_what_was_applied_last_holds():
    made = rollout(Mode.TRANSPARENT)
    assert (made.mode, made.canary, made.labelling_since) == (Mode.TRANSPARENT, Canary(), None)
    later = NOW + timedelta(minutes=1)
    made.apply(Mode.ENRICHED, DB, later)
    assert (made.mode, made.canary, made.labelling_since) == (Mode.ENRICHED, DB, later)
    assert made.treatment(alert(team="db")) is Treatment.PLAIN
    assert made.treatment(alert(later, team="db")) is Treatment.LABEL
