from __future__ import annotations

import json

import pytest

from proxy.demo.proxy_log import ProxyLog


@pytest.fixture
def said():
    return []


@pytest.fixture
def log(said):
    return ProxyLog(said.append)


def event(**members: object) -> str:
    return json.dumps({"event": "classification failed", "level": "warning", "ts": "2026-11-22T13:42:01Z"} | members)


def test_a_complaint_is_said_once(log, said):
    for alertname in ("TargetDown", "BackupFailed"):
        log.hear(event(alertname=alertname, reason="rate_limited"))
    log.hear(event(reason="timeout"))
    assert said == [
        "The proxy: classification failed, reason rate_limited",
        "The proxy: classification failed, reason timeout",
    ]


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(event(level="info"), id="nothing to worry about"),
        pytest.param("LLM_TIMEOUT: bad duration '30x'", id="not JSON"),
        pytest.param("[1, 2]", id="not an event"),
        pytest.param("", id="an empty line"),
    ],
)
def test_the_rest_is_not(log, said, line):
    log.hear(line)
    assert said == []
