"""What arrives at Alertmanager's place is what was sent, but for what the table of cases says."""

import pytest
from fakes import settings
from fidelity import Case, cases
from fidelity_differences import found_in_request
from fidelity_wire import ask, upstream

from proxy.app import build

CASES = cases()


@pytest.fixture
async def recording():
    async with upstream() as server, build(settings(server.url)) as running:
        yield server, running.data_port


async def differences(recording, case: Case):
    server, port = recording
    server.received.clear()
    await ask(port, case.raw)
    got = [message for message in server.received if b"/sentinel" not in message.line]
    if case.refused:
        return set(case.sent) if not got else {f"passed on: {got[0].raw_head!r}"}
    if len(got) != 1:
        return {f"{len(got)} requests arrived"}
    return found_in_request(case.raw, got[0], f"127.0.0.1:{server.port}".encode())


def test_there_are_hundreds_of_cases():
    assert len(CASES) > 300


async def test_what_arrives_is_what_was_sent(recording):
    wrong = {}
    for case in CASES:
        found = await differences(recording, case)
        if found != case.sent:
            wrong[case.name] = found ^ case.sent
    assert wrong == {}
