"""Who takes part while labelling is rolled out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.alert import Alert
from proxy.decisions.canary import Canary
from proxy.policy import CanaryBy

ALERTS = st.dictionaries(st.sampled_from(["alertname", "pod", "team"]), st.text(max_size=6), max_size=3).map(Alert)
SHARES = st.floats(0, 100)
BY = st.sampled_from(CanaryBy)


def share(by, percent, alerts):
    canary = Canary(percent, by)
    return sum(canary.takes(alert) for alert in alerts) / len(alerts) * 100


@given(ALERTS, SHARES, SHARES, BY)
def test_who_takes_part_in_a_share_takes_part_in_a_larger_one(alert, one, other, by):
    smaller, larger = sorted((one, other))
    assert Canary(smaller, by).takes(alert) <= Canary(larger, by).takes(alert)


@given(ALERTS, BY)
def test_none_is_nobody_and_all_is_everybody(alert, by):
    assert (Canary(0, by).takes(alert), Canary(100, by).takes(alert)) == (False, True)


@pytest.mark.parametrize("by", list(CanaryBy), ids=str)
@pytest.mark.parametrize("percent", [0.5, 10, 50])
def test_about_the_right_share_takes_part(by, percent):
    alerts = [Alert({"alertname": f"A{n}"}) for n in range(20_000)]
    assert share(by, percent, alerts) == pytest.approx(percent, abs=1, rel=0)
    assert share(by, percent, alerts) > 0


@given(st.lists(ALERTS, min_size=1), SHARES)
def test_alerts_of_one_name_take_part_together(alerts, percent):
    same = [Alert({**alert.labels, "alertname": "Same"}) for alert in alerts]
    assert len({Canary(percent).takes(alert) for alert in same}) == 1


def test_by_identity_each_is_drawn_by_itself():
    pods = [Alert({"alertname": "Same", "pod": f"p{n}"}) for n in range(5000)]
    assert share(CanaryBy.IDENTITY, 30, pods) == pytest.approx(30, abs=3)
    assert share(CanaryBy.ALERTNAME, 30, pods) in {0, 100}


def test_the_draw_is_the_same_on_every_proxy_and_in_every_version():
    taking_part = [n for n in range(40) if Canary(10).takes(Alert({"alertname": f"A{n}"}))]
    assert taking_part == [5, 7, 12, 29]


@pytest.mark.parametrize(
    ("matchers", "labels", "takes"),
    [
        pytest.param((), {"team": "db"}, True, id="without matchers all are selected"),
        pytest.param(("team=db",), {"team": "db"}, True, id="selected"),
        pytest.param(("team=db",), {"team": "web"}, False, id="not selected"),
        pytest.param(('team="db", env="prod"',), {"team": "db"}, False, id="all of an entry"),
        pytest.param(("team=db", "env=prod"), {"env": "prod"}, True, id="any of the entries"),
    ],
)
def test_matchers_select(matchers, labels, takes):
    assert Canary(matchers=matchers).takes(Alert({"alertname": "A", **labels})) is takes


def test_of_those_selected_the_share_takes_part():
    alerts = [Alert({"alertname": f"A{n}", "team": "db" if n % 2 else "web"}) for n in range(4000)]
    canary = Canary(50, matchers=("team=db",))
    assert sum(canary.takes(alert) for alert in alerts) == pytest.approx(1000, abs=100)


@pytest.mark.parametrize("percent", [-0.1, 100.1, float("nan")])
def test_what_is_no_share(percent):
    with pytest.raises(ValueError, match="want percent from 0 to 100"):
        Canary(percent)


def test_what_is_no_list_of_matchers():
    with pytest.raises(ValueError, match="bad matcher"):
        Canary(matchers=("team",))
