from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.alert import Alert, fingerprint, identity

LABELS = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.text("ab\u00fc"), max_size=6)


@pytest.mark.parametrize(
    ("labels", "shown"),
    [
        # Read off a real Alertmanager 0.25.
        ({"alertname": "HighCPU", "instance": "a"}, "76fe8dd68a0bc4a0"),
        ({"alertname": "HighCPU", "instance": "a:9100", "severity": "critical"}, "1747c26e7c776e2c"),
        ({"alertname": "HighCPU", "instance": "a:9100", "severity": "critical", "ai": "high"}, "b419c83d1bd0c0c0"),
        pytest.param(
            {"alertname": "HighCPU", "instance": "a:9100", "severity": "critical", "ai": "high", "x": ""},
            "b419c83d1bd0c0c0",
            id="an empty label is none",
        ),
        pytest.param({}, "cbf29ce484222325", id="no labels"),
    ],
)
def test_the_fingerprint_is_alertmanagers(labels, shown):
    assert fingerprint(labels) == shown


@given(LABELS)
def test_the_order_of_labels_is_no_part_of_the_identity(labels):
    backwards = dict(reversed(labels.items()))
    assert identity(labels) == identity(backwards)
    assert fingerprint(labels) == fingerprint(backwards)


@given(LABELS, LABELS)
def test_two_label_sets_share_an_identity_only_when_they_are_equal(one, other):
    def without_empty(labels):
        return {name: value for name, value in labels.items() if value}

    assert (identity(one) == identity(other)) == (without_empty(one) == without_empty(other))


@pytest.mark.parametrize(
    ("ends_in", "resolved"),
    [
        pytest.param(None, False, id="no endsAt"),
        pytest.param(timedelta(minutes=4), False, id="the future endsAt of a firing alert"),
        pytest.param(timedelta(), True, id="now"),
        pytest.param(timedelta(seconds=-1), True, id="past"),
    ],
)
def test_an_alert_is_resolved_once_its_end_has_come(ends_in, resolved):
    now = datetime(2026, 11, 22, tzinfo=UTC)
    assert Alert({"a": "b"}, ends_at=None if ends_in is None else now + ends_in).resolved(now) is resolved
