"""Bodies of POSTs, as commands read them."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes import body
from fakes import posted as as_sent

from proxy.cli import posted

pytestmark = pytest.mark.usefixtures("a_directory_of_its_own")

WHOLE = body(as_sent("Disk"), as_sent("Odd") | {"annotations": None}, {"labels": {"alertname": None}})


def read(content: bytes) -> list[tuple[str | None, bool]]:
    """Return of each alert its name, if it can be read, and whether a model is asked about it."""
    Path("alerts.json").write_bytes(content)
    return [(one.alert and one.alert.name, one.usual) for one in posted.read("alerts.json")]


def test_each_alert_is_read_by_itself():
    assert read(WHOLE) == [("Disk", True), ("Odd", False), (None, True)]
    assert [one.why_unread for one in posted.read("alerts.json")] == ["", "", "its labels: not an object of strings"]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(WHOLE + b" and more", id="text after the array"),
        pytest.param(WHOLE.replace(b"fires", b"fires \xff", 1), id="a byte that is no UTF-8"),
    ],
)
def test_of_a_body_that_prometheus_would_not_send_no_alert_is_usual(content: bytes):
    assert content != WHOLE
    assert read(content)[:2] == [("Disk", False), ("Odd", False)]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "alerts.json: cannot read the file: No such file or directory"),
        (b"{}", "alerts.json: want a JSON array of alerts, as Prometheus posts it to /api/v2/alerts"),
    ],
    ids=["no file", "no array"],
)
def test_without_alerts_it_says_why(content: bytes | None, said: str):
    if content is not None:
        Path("alerts.json").write_bytes(content)
    with pytest.raises(posted.Unreadable) as caught:
        posted.read("alerts.json")
    assert str(caught.value) == said
