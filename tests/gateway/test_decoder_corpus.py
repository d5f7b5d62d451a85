"""The decoder's promises, for bodies that once mattered to it; `make fuzz` looks for more of them."""

from __future__ import annotations

from pathlib import Path

import decoder_promises
import pytest
from decoder_promises import check
from go_reading import GoAlert, Unreadable, read

from proxy.gateway import alerts

CORPUS = sorted((Path(__file__).parents[1] / "fuzz" / "corpus").iterdir())


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_what_is_promised_holds(path: Path):
    check(path.read_bytes())


def test_most_of_them_are_read(monkeypatch):
    reads = [0]

    def counted(*given):
        reads[0] += 1
        return ended(*given)

    ended = alerts.ended
    monkeypatch.setattr(decoder_promises.alerts, "ended", counted)
    for path in CORPUS:
        check(path.read_bytes())
    assert reads[0] > len(CORPUS) / 2


@pytest.mark.parametrize(
    ("broken", "body"),
    [
        ("insertions", b'[{"labels":{"a":"b"}}]'),
        ("ended", b'[{"labels":{"a":"b"}}]'),
        ("read", b'[{"labels":{"a":"b"}}]'),
    ],
)
def test_a_promise_that_is_broken_is_found(broken, body, monkeypatch):
    if broken == "insertions":
        monkeypatch.setattr(alerts.Item, "insertions", lambda *_: alerts.Insertions([(12, '"x":"y",')]))
    elif broken == "ended":
        monkeypatch.setattr(alerts, "ended", lambda _, item, *__: (item.end, ',{"labels":{"a":"b"},"endsAt":"2026Z"}'))
    else:
        monkeypatch.setattr(alerts.Item, "read", lambda _: alerts.Alert({"a": "c"}))
    with pytest.raises((AssertionError, ValueError)):
        check(body)


def test_go_reads_names_in_any_case_merges_maps_and_takes_the_last_text():
    [alert] = read(b'[{"LABELS":{"a":"1"},"label\xc5\xbf":{"b":null},"EndsAt":"x","endsat":"y","endsAt":null}] behind')
    assert alert == GoAlert({"a": "1", "b": ""}, {}, {"endsAt": "y"})
    assert read(b'[{"labels":{"a":"\\ud83d"},"annotations":null}]') == [GoAlert({"a": "\ufffd"})]


@pytest.mark.parametrize("body", [b"{}", b"[1]", b'[{"labels":[]}]', b'[{"endsAt":1}]', b'[{"labels":{"a":1}}]'])
def test_go_refuses_another_form(body):
    with pytest.raises(Unreadable):
        read(body)
