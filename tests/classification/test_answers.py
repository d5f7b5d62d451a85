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
        pytest.param(f'{{"example" {good()}', id="what is no object right before it"),
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
        pytest.param(
            '{"severity":"info","category":"other","confidence":"lo', id="an object that breaks off too early"
        ),
        pytest.param(good()[:-1] + ',"score":1e}', id="an object broken in the middle"),
        pytest.param(good()[:-1] + ',"score":x}', id="a member that is no JSON"),
        pytest.param(good()[:-1] + ",}", id="a comma too many"),
        pytest.param(good()[:-1] + "]", id="an object that ends as a list"),
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


WHOLE = good(summary='Fu{ll} \\ "now".', recommendations=["One.", "Two, [three]."], score=7)


@pytest.mark.parametrize("end", ["", " \n"])
@pytest.mark.parametrize("around", ["", "Sure: ", "I use {curly} braces. "])
def test_an_answer_that_breaks_off_keeps_what_had_arrived(around: str, end: str):
    whole = answers.parse(WHOLE, "m")
    labels = len(good()) - 1
    for length in range(labels, len(WHOLE)):
        found = answers.parse(around + WHOLE[:length] + end, "m")
        assert (found.severity, found.category, found.confidence) == (whole.severity, whole.category, whole.confidence)
        assert found.summary in ("", whole.summary)
        assert found.recommendations in ((), whole.recommendations)
    assert answers.parse(around + WHOLE[: WHOLE.index("score")], "m") == whole


INNER = good(severity="noise")
NESTED = good(x=json.loads(INNER), y=[json.loads(INNER)], sure=True, score=0.25, note="\u2192 é {" + INNER)


@pytest.mark.parametrize("around", ["", "Sure: ", "I use {curly} braces. "])
def test_an_object_within_one_that_breaks_off_is_not_the_answer(around: str):
    labels = len(good()) - 1
    for length in range(labels, len(NESTED) + 1):
        try:
            found = answers.parse(around + NESTED[:length], "m")
        except ClassifierInvalidAnswer:  # where what had arrived does not tell whether it is broken
            continue
        assert found.severity is Severity.WARNING
    assert answers.parse(NESTED[: NESTED.index(', "y"')], "m").severity is Severity.WARNING


@pytest.mark.parametrize("end", [" x}", ' "x"}', ', "score": NaN}', "]", ', "score": ' + "9" * 5000 + "}"])
def test_an_object_within_one_that_is_broken_is_not_the_answer(end: str):
    with pytest.raises(ClassifierInvalidAnswer):
        answers.parse(good(x=json.loads(INNER))[:-1] + end, "m")


@pytest.mark.parametrize("around", ["", "Sure: ", "```json\n", "I use {curly} braces. "])
def test_labels_are_known_as_soon_as_the_last_of_them_has_arrived(around: str):
    there = WHOLE.index('"high"') + len('"high"')
    for length in range(len(WHOLE) + 1):
        found = answers.labels(around + WHOLE[:length], "m")
        expected = Classification(Severity.WARNING, Category.STORAGE, Confidence.HIGH, Source.LLM, model="m")
        assert found == (expected if length >= there else None)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('{"severity":"urgent","category":"other","confidence":"low"', id="an unknown label"),
        pytest.param('{"example":' + good() + ",", id="an object within another"),
        pytest.param('{"a":' + "9" * 5000 + "," + good()[1:], id="a number of too many digits before them"),
        pytest.param('{"a":NaN,' + good()[1:], id="NaN before them"),
        pytest.param('{"a":' * 5000, id="nesting without end"),
        pytest.param(" " * answers.EARLY_LIMIT + good(), id="labels that come late"),
    ],
)
def test_what_is_no_label_is_not_told(text: str):
    assert answers.labels(text, "m") is None


def test_a_number_may_go_on():
    assert answers.leading('{"a": 1, "b": 2') == {"a": 1}


@given(st.dictionaries(st.text(), SCALARS | st.lists(SCALARS)), st.data())
def test_what_has_arrived_is_a_part_of_the_whole(whole: dict[str, object], data: st.DataObject):
    text = json.dumps(whole, allow_nan=False) if _finite(whole) else "{}"
    arrived = answers.leading(text[: data.draw(st.integers(0, len(text)))])
    assert json.dumps(list((arrived or {}).items())) == json.dumps(list(json.loads(text).items())[: len(arrived or {})])


def _finite(value: object) -> bool:
    with contextlib.suppress(ValueError):
        json.dumps(value, allow_nan=False)
        return True
    return False


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


def test_of_a_member_that_is_named_twice_the_one_that_was_told_early_counts():
    text = good().replace('"severity"', '"severity": "info", "severity"', 1)
    early = answers.labels(text, "m")
    assert early is not None
    assert early.severity == answers.parse(text, "m").severity == Severity.INFO
    broken_off = answers.parse(text[:-1], "m")
    assert broken_off.severity == Severity.INFO


def test_text_whose_markup_never_comes_to_an_end_is_no_text():
    assert answers.parse(good(summary="words " + "<a" * 160 + ">" * 160), "m").summary == ""
    assert answers.parse(good(summary="words " + "<a" * 5 + ">" * 5), "m").summary == "words"


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
        pytest.param("a\x00b\x1b[31mred\r\nline\u202e", "a b red line", id="control characters go"),
        pytest.param("\x1b]8;;https://evil.example\x07Disk\x1b]8;;\x07 full", "Disk full", id="a terminal's link goes"),
        pytest.param("Full \x1b[31m\x1b[5mnow\x1b[0m", "Full now", id="a terminal's colours go"),
        pytest.param("Read evil.example/path?x=1 now", "Read now", id="a host with a path goes"),
        pytest.param("Read evil.example:8080/x now", "Read now", id="a host with a port and a path goes"),
        pytest.param("Visit evil.com. Now", "Visit Now", id="a name that chats make a link of goes"),
        pytest.param("Visit evil.com(now)", "Visit (now)", id="and with a bracket behind it"),
        pytest.param("Visit evil\u3002com now", "Visit now", id="and with another full stop"),
        pytest.param("Write to ops@evil.example now", "Write to now", id="a mail address goes"),
        pytest.param("Call tel:+1900555 now", "Call now", id="a telephone's address goes"),
        pytest.param("Full &lt;!channel&gt; now", "Full now", id="what stands for a tag goes"),
        pytest.param("&amp;lt;b&amp;gt;Full", "Full", id="what stands for what stands for a tag goes"),
        pytest.param("https&colon;//evil.example now", "now", id="what stands for an address goes"),
        pytest.param("Fu\u200bll\u2066 \u2069now\ufeff", "Fu ll now", id="what is there and not seen goes"),
        pytest.param("!\u200b[img](https://evil.example/x)", "! img", id="an image in pieces is none after"),
        pytest.param(
            "Check config.yaml, deploy.sh, v1.2.3, e.g. /var/log/app.log/x",
            "Check config.yaml, deploy.sh, v1.2.3, e.g. /var/log/app.log/x",
            id="files and versions stay",
        ),
        pytest.param("IP_1:9100 and EMAIL_1", "IP_1:9100 and EMAIL_1", id="placeholders stay"),
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
