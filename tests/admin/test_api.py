"""Who is let in, probes, metrics and the status. Modes and decisions have files of their own."""

import json
from io import BytesIO

import pytest
from aiohttp import ClientSession
from fakes import FakeModel, settings

from proxy.app import build


@pytest.mark.parametrize("ready", [True, False])
async def test_healthy_says_that_it_lives_and_ready_that_it_can_forward(admin, ready):
    client = await admin(ready=ready)
    assert (await client.get("/-/healthy")).status == 200
    assert (await client.get("/-/ready")).status == (200 if ready else 503)


OPEN = ("/-/healthy", "/-/ready", "/metrics")
CLOSED = ("/enrichment/mode", "/api/v1/status", "/api/v1/decisions", f"/api/v1/decisions/{'0' * 16}")
CHANGES = (
    ("/enrichment/mode", {"mode": "enriched"}, 200),
    ("/enrichment/mode/reset", {}, 200),
    ("/api/v1/decisions/forget", {"fingerprint": "0" * 16}, 404),
)
"""Requests that change something, and how they are answered by default."""


@pytest.mark.parametrize("path", OPEN)
async def test_probes_and_scrapers_need_no_token(admin, path):
    client = await admin(token="s3cret", loopback=False)
    assert (await client.get(path)).status == 200


@pytest.mark.parametrize("path", CLOSED)
@pytest.mark.parametrize(
    ("given", "status"),
    [
        (None, 401),
        ("Bearer wrong", 401),
        ("Bearer ", 401),
        ("Basic s3cret", 401),
        ("Bearer s3cret", 200),
        ("bearer s3cret", 200),
    ],
)
async def test_beyond_loopback_the_rest_needs_the_token(admin, path, given, status):
    client = await admin(token="s3cret", loopback=False)
    answered = await client.get(path, headers={"Authorization": given} if given else {})
    assert answered.status == (404 if status == 200 and path.endswith("0") else status)
    assert ("WWW-Authenticate" in answered.headers) is (status == 401)


@pytest.mark.parametrize(("path", "content", "done"), CHANGES)
@pytest.mark.parametrize(("given", "let_in"), [("Bearer wrong", False), ("Bearer s3cret", True)])
async def test_beyond_loopback_changes_need_the_token(admin, path, content, done, given, let_in):
    client = await admin(token="s3cret", loopback=False)
    answered = await client.post(path, json=content, headers={"Authorization": given})
    assert answered.status == (done if let_in else 401)
    assert bool(client.switch.asked) is (let_in and done == 200)


@pytest.mark.parametrize(("path", "content"), [(path, content) for path, content, _ in CHANGES])
@pytest.mark.parametrize("given", [None, "Bearer ", "Bearer x"])
async def test_beyond_loopback_without_a_token_the_rest_is_closed(admin, given, path, content):
    client = await admin(loopback=False)
    answered = await client.post(path, json=content, headers={"Authorization": given} if given else {})
    assert (answered.status, "web.admin_token" in (await answered.json())["error"]) == (403, True)
    for path in CLOSED:
        assert (await client.get(path)).status == 403


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param({}, 200, id="curl"),
        pytest.param({"Origin": "http://127.0.0.1:19094"}, 200, id="our own page"),
        pytest.param({"Origin": "http://evil.example"}, 403, id="a page elsewhere"),
        pytest.param({"Origin": "null"}, 403, id="a page without an origin"),
        pytest.param({"Sec-Fetch-Site": "cross-site"}, 403, id="a browser that says so"),
        pytest.param({"Sec-Fetch-Site": "same-site"}, 403, id="another port of this host"),
        pytest.param({"Sec-Fetch-Site": "same-origin"}, 200, id="our own page, said by the browser"),
    ],
)
async def test_pages_of_other_origins_cannot_switch(admin, headers, status):
    client = await admin()
    host = {"Host": "127.0.0.1:19094"}
    for path, content, done in CHANGES:
        answered = await client.post(path, json=content, headers=host | headers)
        assert answered.status == (done if status == 200 else status)
    assert (await client.get("/enrichment/mode", headers=host | headers)).status == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost:19094", 200), ("127.0.0.1", 200), ("127.8.8.8:1", 200), ("[::1]:19094", 200), ("evil.example", 403)],
)
async def test_on_loopback_only_names_of_this_machine_are_answered(admin, host, status):
    client = await admin()
    for path in CLOSED:
        answered = await client.get(path, headers={"Host": host})
        assert (answered.status == 403) is (status == 403)


QUESTIONS = ("/enrichment/mode", "/api/v1/status", f"/api/v1/decisions/{'0' * 16}")
ORDERS = ("/-/reload", *(path for path, _, _ in CHANGES))


@pytest.mark.parametrize(
    ("method", "path"), [*(("GET", path) for path in QUESTIONS), *(("POST", path) for path in ORDERS)]
)
async def test_a_parameter_that_nobody_knows_is_refused_and_nothing_is_done(admin, method, path):
    client = await admin()
    refused = await client.request(
        method, f"{path}?for=2h", json={path: content for path, content, _ in CHANGES}.get(path)
    )
    assert (refused.status, await refused.json()) == (400, {"error": "unknown parameter 'for'; there are none"})
    assert (client.switch.asked, client.reloads) == ([], 0)


@pytest.mark.parametrize("path", OPEN)
async def test_probes_and_scrapers_may_say_more(admin, path):
    assert (await (await admin()).get(f"{path}?collect=x")).status == 200


async def test_a_path_that_there_is_not_is_told(admin):
    refused = await (await admin()).get("/api/v1/decision?limit=3")
    assert (refused.status, await refused.json()) == (404, {"error": "there is nothing at /api/v1/decision"})


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("DELETE", "/enrichment/mode", "GET,HEAD,POST"), ("GET", "/-/reload", "POST"), ("POST", "/metrics", "GET,HEAD")],
)
async def test_a_method_that_a_path_does_not_take_is_told(admin, method, path, allowed):
    refused = await (await admin()).request(method, path)
    says = f"{path} takes {allowed.replace(',', ' or ')}"
    assert (refused.status, await refused.json(), refused.headers["Allow"]) == (405, {"error": says}, allowed)


@pytest.mark.parametrize("path", [path for path, _, _ in CHANGES])
async def test_a_body_that_is_too_long_is_told(admin, path):
    client = await admin()
    refused = await client.post(path, data=BytesIO(b" " * (1024 * 1024 + 1)))
    assert (refused.status, await refused.json()) == (413, {"error": "the body is longer than 1 MiB"})
    assert client.switch.asked == []


async def test_whoever_is_not_let_in_does_not_hear_what_there_is(admin):
    client = await admin(token="s3cret", loopback=False)
    for path in ("/nowhere", "/api/v1/status?for=2h"):
        assert (await client.get(path)).status == 401


async def test_nothing_of_ours_is_on_the_data_listener(alertmanager):
    async with build(settings(alertmanager.url)) as running, ClientSession() as client:
        for path in (*OPEN, *CLOSED):
            await client.get(f"http://127.0.0.1:{running.data_port}{path}")
    assert [request.line.split()[1] for request in alertmanager.received] == [*OPEN, *CLOSED]


async def test_the_status_says_what_runs(alertmanager):
    async with (
        build(settings(alertmanager.url, enrichment__mode="enriched"), model=FakeModel()) as running,
        ClientSession() as client,
    ):
        answered = await client.get(f"http://127.0.0.1:{running.admin_port}/api/v1/status")
        status = json.loads(await answered.text())
    assert status["mode"] == "enriched"
    assert status["labelling_since"] is not None
    assert status["decisions"] == {"living": 0, "labelled": 0, "bare": 0, "handing_over": 0, "full": False}
    assert (status["store"]["url"], status["store"]["up"]) == ("memory:", True)
    assert len(status["rules"]["hash"]) == 12


async def test_metrics_are_prometheus_text(alertmanager):
    async with build(settings(alertmanager.url)) as running, ClientSession() as client:
        answered = await client.get(f"http://127.0.0.1:{running.admin_port}/metrics")
        text = await answered.text()
    assert answered.headers["Content-Type"].startswith("text/plain")
    assert "aiproxy_mode 0.0" in text
    assert "process_resident_memory_bytes" in text
