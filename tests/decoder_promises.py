"""What is promised of any bytes that come as a POST of alerts: to Alertmanager they stay what they were, and more.

    check(body)      raises AssertionError where a promise is not kept

The hypothesis of it all is `go_reading`: what Alertmanager reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from datetime import UTC, datetime, timedelta

from go_reading import GoAlert, Unreadable, read

from proxy.errors import DecodeError
from proxy.gateway import alerts

LABELS = {"ai_severity": "critical", "ai_category": "other"}
FORMER = {"ai_severity": "info"}
ANNOTATIONS = {"ai_summary": 'A "text",\n\u2028 of the model\'s'}
NOW = datetime(2026, 11, 22, 12, 0, 0, 632_100, tzinfo=UTC)


def check(body: bytes) -> None:
    """Raise AssertionError where a promise is not kept, and whatever the decoder should not raise."""
    try:
        batch = alerts.decode(body)
    except DecodeError:
        return
    assert alerts.encode(batch, []) == body, "what nothing is added to stays as it is"
    meant = _read(body)
    for at, item in enumerate(batch.items):
        try:
            alert = item.read()
        except ValueError:
            continue
        added = item.insertions(LABELS, ANNOTATIONS)
        ends = alerts.ended(batch, item, alert, FORMER, NOW)
        sent = _read(alerts.encode(batch, [*added.labels, *added.annotations, ends]))
        assert (sent is None) is (meant is None), "what Alertmanager takes it still takes, and refuses what it refuses"
        if meant is None or sent is None:
            continue
        wanted = deepcopy(meant)
        assert _some(wanted[at].labels) == alert.labels, "its identity is what Alertmanager takes for it"
        _add(wanted[at].labels, LABELS)
        if added.annotations:
            _add(wanted[at].annotations, ANNOTATIONS)
        gone = sent.pop(at + 1)
        assert sent == wanted, "nothing but ours has come to it, and nothing to the others"
        assert _some(gone.labels) == {**alert.labels, **FORMER}
        _is_over(gone)


def _read(body: bytes) -> list[GoAlert] | None:
    try:
        return read(body)
    except Unreadable:
        return None


def _add(to: dict[str, str], ours: Mapping[str, str]) -> None:
    to |= {name: value for name, value in ours.items() if not to.get(name)}


def _some(labels: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in labels.items() if value}


def _is_over(gone: GoAlert) -> None:
    """Check that it ends, and not before it begins, which Alertmanager would refuse."""
    end = datetime.fromisoformat(gone.texts["endsAt"])
    begin = datetime.fromisoformat(gone.texts.get("startsAt", gone.texts["endsAt"]))
    assert end >= begin
    assert end - begin == timedelta() or end - NOW < timedelta(milliseconds=1)
