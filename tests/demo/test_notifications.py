"""The receiver and its table, told what a real Alertmanager 0.25 posts."""

from __future__ import annotations

import asyncio

import pytest

from proxy.demo.notifications import Board, Notification, heading, webhooks

ALERT = {
    "status": "firing",
    "labels": {
        "alertname": "DiskWillFillSoon",
        "severity": "warning",
        "instance": "db-1:9100",
        "ai_severity": "critical",
        "ai_category": "storage",
    },
    "annotations": {"summary": "almost full", "ai_source": "llm"},
    "startsAt": "2026-11-22T13:42:01.5Z",
    "endsAt": "0001-01-01T00:00:00Z",
    "generatorURL": "http://127.0.0.1:9090/graph",
    "fingerprint": "76fe8dd68a0bc4a0",
}
WATCHDOG = ALERT | {"labels": {"alertname": "Watchdog", "severity": "none"}, "annotations": {}, "fingerprint": "0f"}


@pytest.fixture
def said():
    return []


@pytest.fixture
def board(said):
    return Board(said.append)


def columns(line: str) -> list[str]:
    return line.split()


async def test_a_row_holds_what_the_heading_names(board, said):
    await board.take("pager", [ALERT])
    names, rule, row = said
    assert columns(names) == [
        "alert",
        "severity",
        "ai_severity",
        "ai_category",
        "source",
        "receiver",
        "status",
        "instance",
    ]
    assert set(rule) == {"-", " "}
    assert columns(row) == ["DiskWillFillSoon", "warning", "critical", "storage", "llm", "pager", "firing", "db-1:9100"]
    assert [row.index(word) for word in ("warning", "critical", "llm")] == [
        names.index(word) for word in ("severity", "ai_severity", "source")
    ]


async def test_the_heading_stands_there_once(board, said):
    await board.take("pager", [ALERT])
    await board.take("default", [WATCHDOG])
    assert said[:2] == list(heading())
    assert len(said) == 4


async def test_an_alert_that_was_left_as_it_was_has_dashes(board, said):
    await board.take("default", [WATCHDOG])
    assert columns(said[-1]) == ["Watchdog", "none", "-", "-", "-", "default", "firing", "-"]


async def test_what_a_group_repeats_is_shown_once(board, said):
    await board.take("pager", [ALERT])
    await board.take("pager", [ALERT, ALERT | {"fingerprint": "another"}])
    assert len(board.shown) == 2
    assert len(said) == 4


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"status": "resolved"}, id="a resolve"),
        pytest.param({"startsAt": "2026-11-22T14:00:00Z"}, id="firing anew"),
    ],
)
async def test_what_becomes_of_an_alert_is_shown(board, change):
    await board.take("pager", [ALERT])
    await board.take("pager", [ALERT | change])
    assert [shown.status for shown in board.shown] == ["firing", change.get("status", "firing")]


async def test_a_closed_board_shows_nothing(board, said):
    board.closed = True
    await board.take("pager", [ALERT])
    assert said == []


async def test_waiting_ends_when_all_names_were_shown(board):
    waiting = asyncio.create_task(board.has_shown({"DiskWillFillSoon", "Watchdog"}))
    await board.take("pager", [ALERT])
    await asyncio.sleep(0)
    assert not waiting.done()
    await board.take("default", [WATCHDOG])
    await asyncio.wait_for(waiting, 1)


@pytest.mark.parametrize(
    ("receiver", "ai_severity", "routed"),
    [
        ("pager", "critical", True),
        ("ticket", "warning", True),
        ("chat", "info", True),
        ("quiet", "noise", True),
        ("default", "critical", False),
        ("pager", "warning", False),
        ("default", "", False),
        ("pager", "", False),
        ("quiet", "unheard-of", False),
    ],
)
def test_routed_by_the_label_is_what_arrived_where_the_label_leads(receiver, ai_severity, routed):
    alert = ALERT | {"labels": ALERT["labels"] | {"ai_severity": ai_severity}}
    assert Notification.read(receiver, alert).routed_by_label is routed


async def test_the_path_of_a_webhook_names_the_receiver(aiohttp_client, board):
    client = await aiohttp_client(webhooks(board.take))
    answer = await client.post("/ticket", json={"version": "4", "alerts": [ALERT, WATCHDOG]})
    assert answer.status == 200
    assert [(shown.alertname, shown.receiver) for shown in board.shown] == [
        ("DiskWillFillSoon", "ticket"),
        ("Watchdog", "ticket"),
    ]
