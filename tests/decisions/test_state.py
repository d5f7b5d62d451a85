"""What the store keeps of switches: every state reads as itself, and nothing else as a state."""

import contextlib
import json
from datetime import UTC, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from simulated import NOW

from proxy.decisions.canary import Canary
from proxy.decisions.state import Choice, State, canary_read, canary_shown
from proxy.policy import CanaryBy, Mode

ZONES = st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))])
TIMES = st.datetimes(timezones=ZONES)
MATCHERS = st.sampled_from(["team=db", 'a="1", b=~"x|y"', '{a!="ü"}'])
CANARIES = st.builds(Canary, st.floats(0, 100), st.sampled_from(CanaryBy), st.lists(MATCHERS, max_size=2).map(tuple))
CHOICES = st.builds(Choice, st.sampled_from(Mode), TIMES, st.text(), st.text(), st.none() | TIMES, st.none() | CANARIES)
STATES = st.builds(State, st.integers(0, 2**40), st.none() | CHOICES, st.none() | TIMES)


@given(STATES)
def test_what_is_written_is_read(state):
    assert State.read(state.write()) == state


@given(st.text() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
@example("").via("nothing")
@example("{}").via("an empty object")
@example("[" * 100_000).via("nested too deep")
@example(State(1, Choice(Mode.ENRICHED, NOW, "", "")).write().replace("enriched", "other")).via("a mode of later")
@example('{"revision":1,"choice":[1],"labelling_since":null}').via("a choice that is a list")
@example('{"revision":1,"choice":null,"labelling_since":1}').via("a time that is a number")
@example('{"revision":"x","choice":null,"labelling_since":null}').via("a revision that is no number")
@example('{"revision":1,"choice":null,"labelling_since":"2026-11-22T12:00:00"}').via("a time without its zone")
@example('{"revision":1e999,"choice":null,"labelling_since":null}').via("an endless revision")
def test_what_is_no_state_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"."):
        State.read(text)


@given(STATES, st.data())
def test_a_state_that_was_tampered_with_is_one_or_a_value_error(state, data):
    found = json.loads(state.write())
    where = found if not found["choice"] or data.draw(st.booleans()) else found["choice"]
    where[data.draw(st.sampled_from(sorted(where)))] = data.draw(
        st.none()
        | st.booleans()
        | st.integers()
        | st.text()
        | st.lists(st.integers())
        | st.dictionaries(st.text(), st.text())
    )
    with contextlib.suppress(ValueError):
        assert isinstance(State.read(json.dumps(found)), State)


@given(CANARIES)
def test_a_shown_canary_reads_as_itself(canary):
    assert canary_read(json.loads(json.dumps(canary_shown(canary))), Canary()) == canary


def test_what_is_left_out_of_a_canary_is_as_configured():
    configured = Canary(25, CanaryBy.IDENTITY, ("team=db",))
    assert canary_read({}, configured) == configured
    assert canary_read({"percent": 50}, configured) == Canary(50, CanaryBy.IDENTITY, ("team=db",))
    assert canary_read({"matchers": "env=prod", "by": "alertname"}, configured).matchers == ("env=prod",)
    assert canary_read({"matchers": []}, configured).matchers == ()


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"percent": "50"}, "canary.percent is '50', want a number from 0 to 100"),
        ({"percent": True}, "canary.percent is True"),
        ({"percent": 101}, "want a number from 0 to 100"),
        ({"percnt": 5}, "unknown member 'percnt' of canary"),
        ({"by": "team"}, "canary.by is 'team', want alertname or identity"),
        ({"matchers": [""]}, "canary.matchers wants a list of matchers"),
        ({"matchers": 5}, "canary.matchers wants a list of matchers"),
        ({"matchers": ["team"]}, "bad matcher"),
    ],
    ids=str,
)
def test_what_is_no_canary_says_what_to_write_instead(given, why):
    with pytest.raises(ValueError, match=why):
        canary_read(given, Canary())
