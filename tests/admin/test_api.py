import json

import pytest
from aiohttp import ClientSession
from fakes import FakeModel, settings
from prometheus_client import CollectorRegistry

from proxy.admin.api import admin_api
from proxy.app import build
from proxy.errors import StoreError
from proxy.policy import Mode


class Switch:
    def __init__(self, error=None):
        self.mode, self.source, self.error = Mode.TRANSPARENT, "config", error

    async def to(self, mode, asked_by):
        if self.error:
            raise self.error
        self.mode, self.source = mode, "memory"


@pytest.fixture
async def admin(aiohttp_client):
    async def make(*, token="", loopback=True, ready=True, error=None):
        switch = Switch(error)
        app = admin_api(
            registry=CollectorRegistry(),
            current=switch,
            switch=switch,
            ready=lambda: ready,
            status=lambda: {"version": "1"},
            token=token,
            loopback=loopback,
        )
        return await aiohttp_client(app)

    return make


async def test_the_mode_can_be_asked_and_switched(admin):
    client = await admin()
    assert await (await client.get("/enrichment/mode")).json() == {"mode": "transparent", "source": "config"}
    switched = await client.post("/enrichment/mode", json={"mode": "enriched"})
    assert (switched.status, await switched.json()) == (200, {"mode": "enriched", "source": "memory"})
    assert (await (await client.get("/enrichment/mode")).json())["mode"] == "enriched"


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b'"enriched"', b"null", b'{"mode":"loud"}', b'{"mode":1}', b'{"mode":null}']
)
async def test_a_mode_that_is_none_is_refused_with_advice(admin, content):
    client = await admin()
    refused = await client.post("/enrichment/mode", data=content)
    assert refused.status == 400
    assert "transparent, enriched, transparent_with_recommendations" in (await refused.json())["error"]
    assert (await (await client.get("/enrichment/mode")).json())["mode"] == "transparent"


async def test_a_switch_that_cannot_be_kept_is_refused(admin):
    client = await admin(error=StoreError("down"))
    refused = await client.post("/enrichment/mode", json={"mode": "enriched"})
    assert (refused.status, "down" in (await refused.json())["error"]) == (503, True)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_nothing_but_a_post_changes_the_mode(admin, method):
    client = await admin()
    answered = await client.request(method, "/enrichment/mode", json={"mode": "enriched"})
    assert answered.status == (200 if method == "GET" else 405)
    assert (await (await client.get("/enrichment/mode")).json())["mode"] == "transparent"


@pytest.mark.parametrize("ready", [True, False])
async def test_healthy_says_that_it_lives_and_ready_that_it_can_forward(admin, ready):
    client = await admin(ready=ready)
    assert (await client.get("/-/healthy")).status == 200
    assert (await client.get("/-/ready")).status == (200 if ready else 503)


OPEN = ("/-/healthy", "/-/ready", "/metrics")
CLOSED = ("/enrichment/mode", "/api/v1/status")


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
    assert answered.status == status
    assert ("WWW-Authenticate" in answered.headers) is (status == 401)


@pytest.mark.parametrize("given", [None, "Bearer ", "Bearer x"])
async def test_beyond_loopback_without_a_token_the_rest_is_closed(admin, given):
    client = await admin(loopback=False)
    answered = await client.post(
        "/enrichment/mode", json={"mode": "enriched"}, headers={"Authorization": given} if given else {}
    )
    assert (answered.status, "web.admin_token" in (await answered.json())["error"]) == (403, True)


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
    answered = await client.post("/enrichment/mode", json={"mode": "enriched"}, headers=host | headers)
    assert answered.status == status
    assert (await client.get("/enrichment/mode", headers=host | headers)).status == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost:19094", 200), ("127.0.0.1", 200), ("127.8.8.8:1", 200), ("[::1]:19094", 200), ("evil.example", 403)],
)
async def test_on_loopback_only_names_of_this_machine_are_answered(admin, host, status):
    client = await admin()
    for path in CLOSED:
        assert (await client.get(path, headers={"Host": host})).status == status


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
    assert status["decisions"] == {"living": 0, "labelled": 0, "bare": 0}
    assert status["store"] == {"url": "memory:"}
    assert len(status["rules"]["hash"]) == 12


async def test_metrics_are_prometheus_text(alertmanager):
    async with build(settings(alertmanager.url)) as running, ClientSession() as client:
        answered = await client.get(f"http://127.0.0.1:{running.admin_port}/metrics")
        text = await answered.text()
    assert answered.headers["Content-Type"].startswith("text/plain")
    assert "aiproxy_mode 0.0" in text
    assert "process_resident_memory_bytes" in text
