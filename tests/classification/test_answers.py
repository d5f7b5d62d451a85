from __future__ import annotations

import contextlib
import json
import re
import time

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.classification import answers
from proxy.classification.classification import Category, Classification, Confidence, Severity, Source
from proxy.errors import ClassifierInvalidAnswer

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
GOOD = {"severity": "warning", "category": "storage", "confidence": "high"}


def good(**members: object) -> str:
    return json.dumps(GOOD | members)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(good(), id="bare"),
        pytest.param(f"  \n{good()}\n", id="space around"),
        pytest.param(f"```json\n{good()}\n```", id="a code fence"),
        pytest.param(f"Sure! Here it is: {good()} Tell me if you need more.", id="prose around"),
        pytest.param(f"I use {{curly}} braces. {good()}", id="braces that are no object before it"),
        pytest.param(good() + good(severity="noise"), id="a second object"),
        pytest.param(good(severity=" Warning\n"), id="case and space in a label"),
        pytest.param(good(score=0.7, thought={"severity": "noise"}), id="members that are not ours"),
        pytest.param(good(summary=7, recommendations="none"), id="text of a wrong type"),
        pytest.param(good(summary=None, recommendations=[None, 3, {}]), id="text of other wrong types"),
    ],
)
def test_a_verdict_is_found(text: str):
    verdict = answers.parse(text, "gpt-4o")
    assert verdict == Classification(Severity.WARNING, Category.STORAGE, Confidence.HIGH, Source.LLM, model="gpt-4o")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("The disk is full.", id="prose"),
        pytest.param("[]", id="a list"),
        pytest.param("{}", id="an empty object"),
        pytest.param(good()[:-1], id="an object that breaks off"),
        pytest.param(good(severity="urgent"), id="unknown severity"),
        pytest.param(good(category="disk"), id="unknown category"),
        pytest.param(good(confidence=0.9), id="confidence as a number"),
        pytest.param(good(confidence=float("nan")), id="confidence NaN"),
        pytest.param(good(score=float("nan")), id="NaN elsewhere"),
        pytest.param(good(score=float("inf")), id="Infinity"),
        pytest.param(good(severity=["critical"]), id="severity as a list"),
        pytest.param(good(severity=None), id="severity null"),
        pytest.param(good(severity="critical warning"), id="two severities"),
        pytest.param('{"category":"other","confidence":"low"}', id="no severity"),
        pytest.param('{"severity":"info","confidence":"low"}', id="no category"),
        pytest.param('{"severity":"info","category":"other"}', id="no confidence"),
        pytest.param('{"severity":' + "9" * 5000 + "}", id="a number of too many digits"),
        pytest.param('{"a":' * 5000, id="nesting without end"),
        pytest.param("{" * 70_000 + good(), id="braces without end"),
        pytest.param(" " * 70_000 + good(), id="an answer beyond the limit"),
    ],
)
def test_what_is_no_verdict_is_refused(text: str):
    began = time.perf_counter()
    with pytest.raises(ClassifierInvalidAnswer) as refused:
        answers.parse(text, "gpt-4o")
    assert time.perf_counter() - began < 2
    assert "urgent" not in str(refused.value)  # never the model's words


@given(st.text())
def test_any_text_is_a_verdict_or_refused(text: str):
    with contextlib.suppress(ClassifierInvalidAnswer):
        answers.parse(text, "m")


@given(SCALARS | st.lists(SCALARS) | st.dictionaries(st.text(), SCALARS))
def test_any_members_are_a_verdict_or_refused(value: object):
    for name in (*GOOD, "summary", "recommendations"):
        try:
            answers.verdict(GOOD | {name: value}, "m")
        except ClassifierInvalidAnswer:
            assert name in GOOD


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        pytest.param("CPU < 5 and > 3", "CPU < 5 and > 3", id="comparisons stay"),
        pytest.param("Disk [sda](https://evil.example/x) is full", "Disk sda is full", id="a link keeps its words"),
        pytest.param("![img](https://evil.example/x.png) full", "img full", id="an image keeps its words"),
        pytest.param("See https://evil.example/x?y=z now", "See now", id="an address goes"),
        pytest.param("See www.evil.example now", "See now", id="an address without a scheme goes"),
        pytest.param("Run javascript:alert(1) now", "Run now", id="a script address goes"),
        pytest.param("<b>Full</b> <script src=x>disk</script>", "Full disk", id="tags go"),
        pytest.param("<<b>script>x", "< script>x", id="a tag within a tag is none after"),
        pytest.param("[[a](b)](https://evil.example)", "a", id="a link within a link goes"),
        pytest.param("a\x00b\x1b[31mred\r\nline\u202e", "a b [31mred line", id="control characters go"),
        pytest.param("x" * 500, "x" * 159 + "…", id="long text is cut"),
    ],
)
def test_text_is_plain_words(said: str, kept: str):
    verdict = answers.parse(good(summary=said, recommendations=[said, 5, "Second."]), "m")
    assert verdict.summary == kept
    assert verdict.recommendations[0] == (kept if len(kept) <= 120 else kept[:119] + "…")
    assert verdict.recommendations[1] == "Second."


@given(st.text("htps:/w.<>b[]()!ja \n"))
def test_no_text_keeps_a_link_or_a_tag(said: str):
    summary = answers.parse(good(summary=said), "m").summary
    assert not re.search(r"[a-z]://", summary)
    assert not re.search(r"</?[a-z][^<>]*>", summary)
    assert not re.search(r"\[[^\[\]]*\]\([^()]*\)", summary)


def test_members_and_verdict_are_each_others_inverse():
    verdict = answers.parse(good(summary="Full.", recommendations=["One.", "Two."]), "m")
    assert answers.verdict(answers.members(verdict), "m") == verdict


def test_the_schema_puts_the_labels_first():
    assert list(answers.SCHEMA["properties"]) == [
        "severity",
        "category",
        "confidence",
        "summary",
        "recommendations",
    ]


def test_the_schema_is_strict():
    assert answers.SCHEMA["required"] == list(answers.SCHEMA["properties"])
    assert answers.SCHEMA["additionalProperties"] is False


def test_what_parses_can_be_said_within_the_schema():
    jsonschema.Draft202012Validator.check_schema(answers.SCHEMA)
    whole = answers.members(answers.parse(good(summary="s", recommendations=["r"]), "m"))
    jsonschema.validate(whole, answers.SCHEMA)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(whole | {"severity": "urgent"}, answers.SCHEMA)


@pytest.mark.parametrize(
    "call", ["<@U0123>", "<#C1|general>", "<!channel>", "<!subteam^S1>", "@here", "@Channel", "@everyone"]
)
def test_no_text_calls_people_in_a_chat(call):
    found = answers.parse(json.dumps(GOOD | {"summary": f"Disk full {call} now"}), "m")
    assert not set("<>@") & set(found.summary)
    assert found.summary.startswith("Disk full ")
