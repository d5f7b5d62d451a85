"""What leaves about several alerts at once, and whose the verdicts in an answer are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.alert import Alert
from proxy.classification import answers, batches
from proxy.classification.prompts import Prompts
from proxy.errors import ClassifierInvalidAnswer

NAMES = ["DiskFull", "HighLatency", "PodDown"]
PROMPTS = Prompts()


def one(number: object, name: object, **members: object) -> dict[str, object]:
    """A verdict as a model writes it; its summary says whose it is."""
    labels = {"severity": "warning", "category": "capacity", "confidence": "high"}
    return {"id": number, "alertname": name, **labels, "summary": f"{name}", **members}


def said(*verdicts: object) -> str:
    return json.dumps({"verdicts": list(verdicts)})


def owners(text: str, names: Sequence[str] = NAMES) -> list[object]:
    """Return the summary that each alert gets."""
    return [members and members["summary"] for members in batches.parse(text, names)]


WHOLE = [one("1", "DiskFull"), one("2", "HighLatency"), one("3", "PodDown")]


# What leaves


def test_each_alert_is_shown_as_it_would_be_alone_behind_its_number():
    prompts = [PROMPTS.render(Alert({"alertname": name, "instance": "10.0.0.7:9100"})) for name in NAMES]
    batch = batches.batch(prompts)
    system, user = batch.messages
    assert system == prompts[0].messages[0]
    asked, *shown = user["content"].split("\n=== Alert number ")
    assert asked + "\n" == batches.ASKED + "\n"
    assert shown == [f"{n} ===\n{prompt.messages[-1]['content']}" for n, prompt in enumerate(prompts, 1)]
    assert batch.names == NAMES


def fitting(*alerts: Alert) -> list[int]:
    return batches.fit([PROMPTS.render(alert) for alert in alerts])


def test_those_go_together_that_can_be_told_apart_by_their_names():
    named = [Alert({"alertname": name}) for name in ("A", "B", "A", "", "C" * 101, "a ", "D" * 100)]
    assert fitting(*named, Alert({"job": "none"})) == [0, 1, 6]


def test_a_name_that_may_not_leave_tells_nobody_apart():
    prompts = Prompts(labels=["severity"])
    assert batches.fit([prompts.render(Alert({"alertname": name})) for name in NAMES]) == []


def test_those_go_together_whose_prompts_begin_the_same():
    shown = [PROMPTS.render(Alert({"alertname": name})) for name in NAMES]
    other = PROMPTS.render(Alert({"alertname": "Other"}))
    different = replace(other, messages=[{"role": "system", "content": "else"}, other.messages[-1]])
    assert batches.fit([shown[0], different, *shown[1:]]) == [0, 2, 3]


def test_the_schema_names_the_numbers_that_there_are():
    item = batches.schema(3)["properties"]["verdicts"]["items"]
    assert item["properties"]["id"] == {"type": "string", "enum": ["1", "2", "3"]}
    assert list(item["properties"]) == item["required"] == ["id", "alertname", *answers.SCHEMA["required"]]
    assert batches.schema(3) == batches.schema(3)


@pytest.mark.parametrize(
    ("alerts", "of_one", "tokens"),
    [(1, 400, 400), (5, 400, 2000), (20, 400, 4096), (2, 4000, 4096), (1, 5000, 5000), (2, 5000, 5000)],
)
def test_an_answer_about_more_may_be_longer_as_far_as_models_write(alerts, of_one, tokens):
    assert batches.max_tokens(alerts, of_one) == tokens


# What comes


def test_a_verdict_belongs_to_the_alert_whose_number_and_name_it_has():
    assert owners(said(*WHOLE)) == NAMES
    assert owners(said(*reversed(WHOLE))) == NAMES


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param(said(WHOLE[0], WHOLE[2]), ["DiskFull", None, "PodDown"], id="one is missing"),
        pytest.param(said(*WHOLE, one("2", "HighLatency")), ["DiskFull", None, "PodDown"], id="one is there twice"),
        pytest.param(
            said(WHOLE[0], one("2", "PodDown"), one("3", "HighLatency")), ["DiskFull", None, None], id="two are swapped"
        ),
        pytest.param(said(*WHOLE[:2], one("2", "PodDown")), ["DiskFull", None, None], id="a number in another's place"),
        pytest.param(
            said(*WHOLE, one("4", "DiskFull"), one("0", "DiskFull"), one("-1", "PodDown")), NAMES, id="strangers"
        ),
        pytest.param(
            said(*WHOLE, one("12", "x"), one("1" * 5000, "DiskFull"), one("٣", "PodDown")), NAMES, id="no numbers"
        ),
        pytest.param(
            said(*WHOLE, one(None, "DiskFull"), one(True, "DiskFull"), one([1], "DiskFull")), NAMES, id="no ids"
        ),
        pytest.param(
            said(one(1, "diskfull "), one(" 2", "HIGHLATENCY")), ["diskfull ", "HIGHLATENCY", None], id="sloppy"
        ),
        pytest.param(said(one("1", None), one("2", 2), one("3", ["PodDown"])), [None] * 3, id="no names"),
    ],
)
def test_what_is_no_alerts_own_is_refused(text: str, found: list[object]):
    assert owners(text) == found


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("Here you are:\n```json\n" + json.dumps({"verdicts": WHOLE}, indent=1) + "\n```", id="in prose"),
        pytest.param(json.dumps(WHOLE), id="a bare list"),
        pytest.param(json.dumps({"note": [1, 2], "verdicts": WHOLE}), id="with another member"),
        pytest.param(said(*WHOLE)[:-2], id="without its end"),
    ],
)
def test_a_list_is_found_whatever_stands_around_it(text: str):
    assert owners(text) == NAMES


def test_what_had_arrived_whole_is_good_when_the_answer_breaks_off():
    text = said(*WHOLE)
    third = text.index('{"id": "3"')
    for end in range(text.index('{"id": "1"') + 1, len(text)):
        found = owners(text[:end])
        assert found[:2] == [name if text[:end].count("}") >= n else None for n, name in enumerate(NAMES[:2], 1)]
        assert found[2] == ("PodDown" if "}" in text[third:end] else None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no",
        "[]",
        '{"verdicts": {}}',
        said(),
        '{"verdicts": "[1]"}',
        said(*WHOLE)[:-2] + "!" * 30,
        said(WHOLE[0]).replace('"capacity"', "capacity"),
        "[{" * 40_000,
    ],
)
def test_what_holds_no_list_of_verdicts_is_no_answer(text: str):
    with pytest.raises(ClassifierInvalidAnswer):
        batches.parse(text, NAMES)


def test_a_name_that_leaves_in_other_letters_is_known_again():
    assert owners(said(one("1", "a\\u003cb")), ["a<b"]) == ["a\\u003cb"]
    assert owners(said(one("1", "a\\xb")), ["a\\xb"]) == ["a\\xb"]


VALUES: Any = st.one_of(st.none(), st.integers(-3, 5), st.sampled_from(["1", "2", "3", "4", " 1"]), st.text(max_size=3))
VERDICTS = st.builds(one, VALUES, st.one_of(st.sampled_from(NAMES), VALUES))


@given(verdicts=st.lists(VERDICTS, max_size=8), end=st.integers(0, 400))
def test_whatever_is_said_no_alert_gets_anothers_verdict(verdicts: list[Mapping[str, object]], end: int):
    text = said(*verdicts)
    try:
        found = batches.parse(text[: len(text) - end], NAMES)
    except ClassifierInvalidAnswer:
        return
    for number, (name, members) in enumerate(zip(NAMES, found, strict=True), 1):
        if members is not None:
            assert (str(members["id"]).strip(), members["alertname"]) == (str(number), name)
            alike = [one for one in verdicts if str(one["id"]).strip() == str(number)]
            assert len(alike) == 1 or end
