import contextlib
import json
from datetime import UTC, datetime, timedelta

import pytest
from fakes import body, posted
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import DecodeError
from proxy.gateway import alerts

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
KNOWN = {"labels", "annotations", "startsat", "endsat", "generatorurl"}
ALERTS = st.builds(
    lambda labels, annotations, times, unknown: {**unknown, **annotations, **times, "labels": labels},
    st.dictionaries(NAMES, st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=4),
    st.one_of(st.just({}), st.dictionaries(TEXT, TEXT, max_size=3).map(lambda found: {"annotations": found})),
    st.sampled_from([{}, {"startsAt": "2026-11-22T10:59:56.632Z", "endsAt": "2026-11-22T11:05:01.632+01:00"}]),
    st.dictionaries(TEXT.filter(lambda name: name.casefold() not in KNOWN), JSON, max_size=3),
)
ADDED = {"ai_severity": "critical", "ai_category": "storage"}
TEXTS = {"ai_summary": 'says "why" \\ \n <b>\u00fc</b> \U0001f525', "ai_source": "rules"}


def both(insertions):
    return [*insertions.labels, *insertions.annotations]


def written(items, indent, ascii_only):
    return json.dumps(items, indent=indent, ensure_ascii=ascii_only).encode()


@given(st.lists(ALERTS | JSON, max_size=4), st.sampled_from([None, 2]), st.booleans())
def test_a_body_to_which_nothing_is_added_stays_the_same_bytes(items, indent, ascii_only):
    content = written(items, indent, ascii_only)
    assert alerts.encode(alerts.decode(content), []) == content


@given(st.lists(ALERTS, min_size=1, max_size=4), st.sampled_from([None, 2]), st.booleans())
def test_only_our_members_are_added(items, indent, ascii_only):
    content = written(items, indent, ascii_only)
    batch = alerts.decode(content)
    insertions = [pair for item in batch.items for pair in both(item.insertions(ADDED, TEXTS))]

    changed = json.loads(alerts.encode(batch, insertions))

    expected = [
        {**item, "labels": ADDED | item["labels"], "annotations": TEXTS | item.get("annotations", {})} for item in items
    ]
    assert changed == expected


@given(st.lists(ALERTS, min_size=1, max_size=4), st.sampled_from([None, 2]))
def test_taking_the_insertions_out_again_gives_the_original_bytes(items, indent):
    content = written(items, indent, True)
    batch = alerts.decode(content)
    insertions = sorted(pair for item in batch.items for pair in both(item.insertions(ADDED, TEXTS)))
    text = alerts.encode(batch, insertions).decode()
    for offset, added in insertions:
        assert text[offset : offset + len(added)] == added
        text = text[:offset] + text[offset + len(added) :]
    assert text.encode() == content


@given(ALERTS)
def test_what_is_read_is_what_json_says(item):
    read = alerts.decode(body(item)).items[0].read()
    assert read.labels == item["labels"]
    assert read.annotations == item.get("annotations", {})


def test_what_the_sender_said_is_never_overwritten():
    mine = posted(ai_severity="mine")
    mine["annotations"]["ai_summary"] = "mine too"
    batch = alerts.decode(body(mine))
    changed = json.loads(alerts.encode(batch, both(batch.items[0].insertions(ADDED, TEXTS))))[0]
    assert changed["labels"] == mine["labels"] | {"ai_category": "storage"}
    assert changed["annotations"] == mine["annotations"] | {"ai_source": "rules"}


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{}", id="an object"),
        pytest.param(b"null", id="null"),
        pytest.param(b"[", id="cut off"),
        pytest.param(b'[{"labels":{"a":"b"}', id="cut off in an alert"),
        pytest.param(b'[{"labels":{"a":"b"}},]', id="trailing comma"),
        pytest.param(b'[{"labels" {"a":"b"}}]', id="no colon"),
        pytest.param(b'[{"labels":{"a":"b"} "x":1}]', id="no comma"),
        pytest.param(b"[{1:2}]", id="a key that is no string"),
        pytest.param(b'\xef\xbb\xbf[{"labels":{"a":"b"}}]', id="byte order mark"),
        pytest.param(b'[{"x":NaN}]', id="NaN"),
        pytest.param(b'[{"x":-Infinity}]', id="infinity"),
        pytest.param(b"[" * 100_000, id="nested too deep"),
        pytest.param(b'[{"x":' + b'{"a":' * 100_000, id="objects nested too deep"),
        pytest.param(b'[{"labels":{"a":"b\nc"}}]', id="raw control character"),
    ],
)
def test_what_is_no_array_of_json_is_refused(content):
    with pytest.raises(DecodeError):
        alerts.decode(content)


@pytest.mark.parametrize(
    "alert",
    [
        pytest.param(b"null", id="null"),
        pytest.param(b"1", id="a number"),
        pytest.param(b"{}", id="no labels"),
        pytest.param(b'{"labels":{}}', id="empty labels"),
        pytest.param(b'{"labels":{"a":""}}', id="only empty labels"),
        pytest.param(b'{"labels":null}', id="null labels"),
        pytest.param(b'{"labels":[]}', id="labels as a list"),
        pytest.param(b'{"labels":{"a":1}}', id="a number as a value"),
        pytest.param(b'{"labels":{"a":null}}', id="a null label, which Alertmanager drops"),
        pytest.param(b'{"labels":{"a":"b","a":"c"}}', id="a label twice, where the last one wins"),
        pytest.param(b'{"labels":{"a":"b"},"labels":{"a":"c"}}', id="labels twice"),
        pytest.param(b'{"LABELS":{"a":"b"}}', id="LABELS, which Alertmanager takes"),
        pytest.param(b'{"labels":{"a":"b"},"Labels":{"a":"c"}}', id="labels twice in two spellings"),
        pytest.param('{"label\u017f":{"a":"b"}}'.encode(), id="a spelling only Go takes for labels"),
        pytest.param(b'{"labels":{"a":"\\ud800"}}', id="a lone surrogate"),
    ],
)
def test_an_alert_in_an_unusual_form_is_not_read_but_its_neighbours_are(alert):
    batch = alerts.decode(b'[{"labels":{"a":"1"}},' + alert + b',{"labels":{"a":"2"}}]')
    assert [batch.items[i].read().labels["a"] for i in (0, 2)] == ["1", "2"]
    with pytest.raises(ValueError, match=r"."):
        batch.items[1].read()


@pytest.mark.parametrize(
    "rest",
    [
        pytest.param(b'"annotations":null', id="null annotations"),
        pytest.param(b'"annotations":{"a":{}}', id="annotations that are no strings"),
        pytest.param(b'"annotations":{},"annotations":{}', id="annotations twice"),
        pytest.param(b'"Annotations":{}', id="annotations in another spelling"),
        pytest.param(b'"startsAt":1', id="a time that is a number"),
        pytest.param(b'"startsAt":"yesterday"', id="a time that is none"),
        pytest.param(b'"endsAt":"2026-11-22T10:59:56"', id="a time without its zone"),
    ],
)
def test_an_alert_of_which_only_the_rest_is_unusual_is_known_by_its_labels(rest):
    content = b'[{"labels":{"a":"b"},' + rest + b"}]"
    batch = alerts.decode(content)
    [item] = batch.items
    assert (item.read().labels, item.usual) == ({"a": "b"}, False)
    changed = alerts.encode(batch, both(item.insertions(ADDED, TEXTS)))
    assert changed == content.replace(b'"a":"b"', b'"a":"b","ai_severity":"critical","ai_category":"storage"')


@pytest.mark.parametrize(
    ("content", "read"),
    [
        pytest.param(
            b'[{"labels":{"a":"1"},"x":"\xff"},{"labels":{"a":"2"}}]', ["1", "2"], id="a byte that is no UTF-8"
        ),
        pytest.param(b'[{"labels":{"a":"\xff"}},{"labels":{"a":"2"}}]', ["2"], id="such a byte in a label"),
        pytest.param(b'[{"labels":{"a":"1"}}] x', ["1"], id="text after the array"),
        pytest.param(b'[{"labels":{"a":"1"}}][]\x00\xfe', ["1"], id="anything after the array"),
    ],
)
def test_what_alertmanager_reads_all_the_same_is_unusual_and_its_alerts_are_known(content, read):
    batch = alerts.decode(content)
    found = []
    for item in batch.items:
        with contextlib.suppress(ValueError):
            found.append(item.read().labels["a"])
    assert (found, batch.usual) == (read, False)
    assert alerts.encode(batch, []) == content


def test_a_name_of_ours_with_an_empty_value_is_no_label_of_the_senders():
    batch = alerts.decode(b'[{"labels":{"a":"b","ai_severity":""}}]')
    changed = json.loads(alerts.encode(batch, both(batch.items[0].insertions(ADDED, {}))))
    assert changed == [{"labels": {"a": "b", **ADDED}}]


def test_numbers_keep_their_digits_however_many():
    content = b'[{"labels":{"a":"b"},"big":' + b"9" * 5000 + b',"exact":1.10,"huge":1e999}]'
    batch = alerts.decode(content)
    changed = alerts.encode(batch, both(batch.items[0].insertions(ADDED, {})))
    assert changed == content.replace(b'"a":"b"', b'"a":"b","ai_severity":"critical","ai_category":"storage"')


@pytest.mark.parametrize("year", ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000Z"])
def test_gos_zero_time_means_none(year):
    item = alerts.decode(body({"labels": {"a": "b"}, "startsAt": year, "endsAt": year})).items[0].read()
    assert (item.starts_at, item.ends_at) == (None, None)


# The end of an alert under labels that it had

NOW = datetime(2026, 11, 22, 12, 0, 0, 632_100, tzinfo=UTC)
FORMER = {"ai_severity": "info", "ai_category": "other"}
OVER = "2026-11-22T11:59:55.632Z"
"""By any clock."""


def ended(content, labels=FORMER):
    """Return the alerts of a body to which the end of the first one was added."""
    batch = alerts.decode(content)
    item = batch.items[0]
    return json.loads(alerts.encode(batch, [alerts.ended(batch, item, item.read(), labels, NOW)]))


@given(st.lists(ALERTS, min_size=1, max_size=3), st.sampled_from([None, 2]), st.booleans())
def test_the_end_stands_right_behind_the_alert_and_says_all_that_it_said(items, indent, ascii_only):
    first, gone, *others = ended(written(items, indent, ascii_only))
    assert [first, *others] == items
    assert gone == {**first, "labels": {**first["labels"], **FORMER}, "endsAt": OVER}


@pytest.mark.parametrize(
    ("begun", "end"),
    [
        pytest.param("2026-11-22T11:00:00Z", OVER, id="a moment ago"),
        pytest.param("2026-11-22T11:59:58Z", "2026-11-22T11:59:58Z", id="when it began"),
        pytest.param("2026-11-22T12:00:05.632Z", "2026-11-22T12:00:05.632Z", id="not before it begins"),
        pytest.param("2026-11-22T13:00:05.632+01:00", "2026-11-22T13:00:05.632+01:00", id="by any clock"),
        pytest.param("2026-11-22T12:00:05.6329Z", "2026-11-22T12:00:05.6329Z", id="nor by part of a millisecond"),
        pytest.param("0001-01-01T00:00:00Z", OVER, id="Go's zero time is no beginning"),
    ],
)
def test_an_alert_has_ended_and_never_before_it_began(begun, end):
    [_, gone] = ended(body({"labels": {"a": "b"}, "startsAt": begun, "endsAt": "2026-11-22T12:04:00Z"}))
    assert gone["endsAt"] == end
    assert datetime.fromisoformat(end) - NOW < timedelta(minutes=1)


def test_the_bare_alert_can_be_ended_too():
    [_, gone] = ended(body({"labels": {"a": "b"}}), labels={})
    assert gone["labels"] == {"a": "b"}


def test_empty_labels_do_not_come_back():
    [_, gone] = ended(b'[{"labels":{"a":"b","ai_severity":""}}]')
    assert gone["labels"] == {"a": "b", **FORMER}


@pytest.mark.parametrize("number", [b"1e999", b"9" * 5000], ids=["infinite to Python", "too long for Python"])
def test_numbers_stay_as_they_are_written(number):
    batch = alerts.decode(b'[{"labels":{"a":"b"},"x":' + number + b"}]")
    _, text = alerts.ended(batch, batch.items[0], batch.items[0].read(), FORMER, NOW)
    assert f'"x":{number.decode()}' in text


@pytest.mark.parametrize(
    ("rest", "wanted"),
    [
        pytest.param('"endsAt":"2026-11-22T13:00:00Z","ENDSAT":"2026-11-22T14:00:00Z"', {"endsAt": OVER}, id="end"),
        pytest.param('"end\u017fAt":"2026-11-22T14:00:00Z"', {"endsAt": OVER}, id="the end, with a long s"),
        pytest.param('"startsAt":"2026-11-22T11:00:00Z","STARTSAT":"2026-11-22T14:00Z"', {"endsAt": OVER}, id="start"),
        pytest.param('"startsAt":7,"annotations":null,"y":1', {"annotations": None, "y": 1, "endsAt": OVER}, id="odd"),
        pytest.param(
            '"startsAt":"2026-11-22T11:00:00Z","startsAt":"2026-11-22T14:00:00Z"', {"endsAt": OVER}, id="two beginnings"
        ),
        pytest.param(
            '"annotations":null,"startsAt":"2026-11-22T14:00:00Z"',
            {"annotations": None, "endsAt": OVER},
            id="a beginning that is not looked at, as something else is odd",
        ),
        *(
            pytest.param(f'"startsAt":"{far}"', {"startsAt": far, "endsAt": far}, id=far)
            for far in ("9999-12-31T23:59:59.9999Z", "9999-12-31T23:59:59-14:00")
        ),
    ],
)
def test_whatever_the_sender_wrote_the_end_is_the_last_word(rest, wanted):
    [_, gone] = ended(f'[{{"labels":{{"a":"b"}},{rest}}}]'.encode())
    assert gone == {"labels": {"a": "b", **FORMER}} | wanted
