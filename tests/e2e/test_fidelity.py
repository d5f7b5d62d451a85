"""What real Alertmanagers answer through the proxy is what they answer directly, but for what the table says."""

from __future__ import annotations

import asyncio
import json

import pytest
import real
from fakes import settings
from fidelity import ALERT, JSON, cases, request
from fidelity_differences import found_in_answer
from fidelity_wire import ask, port_of

from proxy.app import build

CONFIG = {"route": {"receiver": "nobody"}, "receivers": [{"name": "nobody"}]}
SILENCE = {
    "matchers": [{"name": "a", "value": "b", "isRegex": False}],
    "startsAt": "2030-01-01T00:00:00Z",
    "endsAt": "2035-01-01T00:00:00Z",
    "createdBy": "x",
    "comment": "x",
}


@pytest.fixture
async def both(am_binary, tmp_path):
    """The ports of an Alertmanager that holds an alert, and of a proxy before it."""
    async with real.alertmanager(am_binary, CONFIG, tmp_path) as server, build(settings(server.url)) as running:
        assert await real.send(server.url, *json.loads(ALERT)) == 200
        yield port_of(server.url), running.data_port


async def test_answers_are_alertmanagers_own(both):
    direct, proxied = both
    wrong = {}
    for case in cases():
        theirs = None if case.refused else await ask(direct, case.raw)  # it may wait for what never comes
        found = found_in_answer(case, theirs, await ask(proxied, case.raw))
        if found - case.by_version != case.answered:
            wrong[case.name] = found ^ case.answered
    assert wrong == {}


async def test_a_silence_is_made_read_and_expired_alike(both):
    told = []
    for port in both:
        made = await ask(port, request("POST", "/api/v2/silences", JSON, body=json.dumps(SILENCE).encode()))
        name = json.loads(made.answer.body)["silenceID"]
        read = await ask(port, request("GET", f"/api/v2/silence/{name}"))
        expired = await ask(port, request("DELETE", f"/api/v2/silence/{name}"))
        told.append([exchange.answer.line for exchange in (made, read, expired)])
        assert json.loads(read.answer.body)["matchers"][0]["name"] == "a"
    assert told[0] == told[1] == [b"HTTP/1.1 200 OK"] * 3


async def test_many_clients_at_once_get_their_own_answers(both):
    direct, proxied = both
    paths = ["/api/v2/status", "/api/v2/alerts", "/nothing", "/-/ready", "/api/v2/receivers"]
    expected = {path: (await ask(direct, request("GET", path))).answer.body for path in paths}
    found = await asyncio.gather(*(ask(proxied, request("GET", paths[n % 5])) for n in range(100)))
    assert [exchange.answer.body for exchange in found] == [expected[paths[n % 5]] for n in range(100)]
