"""What the proxy asks Alertmanager on its own account."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import ClientSession
from fakes import answer, fake_alertmanager, stamp
from yarl import URL

from proxy.decisions.watch import Cluster
from proxy.errors import UpstreamError, UpstreamRefused
from proxy.gateway import alertmanager as client
from proxy.gateway.access import Access
from proxy.gateway.alertmanager import AlertmanagerClient

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
BEGUN = "2026-11-22T11:59:00.000Z"
PEER = {"address": "10.0.0.1:9094", "name": "01HG"}
VERSION = {"branch": "", "buildDate": "", "buildUser": "", "goVersion": "go1.19", "revision": "", "version": "0.25.0"}


def status(cluster, uptime=BEGUN):
    return json.dumps(
        {"cluster": cluster, "config": {"original": "route: {}"}, "uptime": uptime, "versionInfo": VERSION}
    ).encode()


@pytest.mark.parametrize(
    ("cluster", "peers"),
    [
        pytest.param({"name": "01HG", "peers": [PEER, PEER], "status": "ready"}, 2, id="two"),
        pytest.param({"name": "01HG", "peers": [PEER], "status": "settling"}, 1, id="alone so far"),
        pytest.param({"name": "01HG", "peers": [], "status": "settling"}, 1, id="not even itself so far"),
        pytest.param({"name": "01HG", "status": "ready"}, 1, id="peers left out"),
        pytest.param({"peers": [], "status": "disabled"}, 0, id="0.25 without clustering"),
        pytest.param({"status": "disabled"}, 0, id="a current one without clustering"),
        pytest.param({"peers": None, "status": "disabled"}, 0, id="null for none"),
        pytest.param({"peers": [PEER, PEER], "status": "of a later version"}, 2, id="a status nobody knows yet"),
    ],
)
def test_how_many_it_sees_in_its_cluster(cluster, peers):
    assert client._cluster(status(cluster), NOW) == Cluster(peers, 60.0)


@pytest.mark.parametrize(
    ("uptime", "up"),
    [
        pytest.param("2026-11-22T12:59:00.123456789+01:00", 59.876544, id="nanoseconds and a zone"),
        pytest.param("2026-11-22T12:05:00Z", 0.0, id="a clock that is ahead"),
        pytest.param("0001-01-01T00:00:00Z", 0.0, id="Go's zero time"),
        pytest.param(None, 0.0, id="not said"),
    ],
)
def test_how_long_it_has_been_up(uptime, up):
    assert client._cluster(status({"peers": [PEER], "status": "ready"}, uptime), NOW).up == pytest.approx(up)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>",
        b"[]",
        b"7",
        b"{}",
        b'{"cluster":null}',
        b'{"cluster":[]}',
        b'{"cluster":{"peers":7}}',
        b"[" * 9**5,
    ],
    ids=lambda content: repr(content[:30]),
)
def test_what_is_no_status_is_refused(content):
    with pytest.raises(UpstreamRefused, match="no status of an Alertmanager in the answer"):
        client._cluster(content, NOW)


async def test_both_questions_are_asked_below_the_prefix_of_the_url():
    async with fake_alertmanager(peers=3, up=60) as upstream, ClientSession() as session:
        asked = AlertmanagerClient(session, URL(upstream.url + "/alerts"), 5)
        assert (await asked.cluster()).peers == 3
        assert (await asked.cluster()).up == pytest.approx(60, abs=10)
        assert list(await asked.alerts()) == []


async def test_what_it_holds_is_read_as_it_stands():
    begun = stamp(-60)
    alert = {
        "labels": {"a": "b"},
        "annotations": {"c": "d"},
        "startsAt": begun,
        "endsAt": stamp(60),
        "updatedAt": begun,
    }
    async with fake_alertmanager(held=[alert]) as upstream, ClientSession() as session:
        [held] = await AlertmanagerClient(session, URL(upstream.url), 5).alerts()
    assert (held.alert.labels, held.alert.annotations) == ({"a": "b"}, {"c": "d"})
    assert held.alert.starts_at == held.updated_at == datetime.fromisoformat(begun)
    assert held.alert.ends_at - held.alert.starts_at > timedelta(seconds=119)


@pytest.mark.parametrize("authorization", [None, "Bearer s3cret"])
async def test_its_credentials_go_with_each_of_its_questions(aiohttp_server, authorization):
    from aiohttp import web

    seen = []

    async def keep(request):
        seen.append((request.path, request.headers.get("Authorization")))
        return web.Response(body=status({"status": "disabled"}) if "status" in request.path else b"[]")

    app = web.Application()
    app.router.add_get("/{path:.*}", keep)
    server = await aiohttp_server(app)
    async with ClientSession() as session:
        asked = AlertmanagerClient(session, server.make_url(""), 5, access=Access(authorization=lambda: authorization))
        await asked.alerts()
        await asked.cluster()
    assert seen == [("/api/v2/alerts", authorization), ("/api/v2/status", authorization)]


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        ("401 Unauthorized", "401, it wants credentials"),
        ("403 Forbidden", "403, it refuses our credentials"),
        ("404 Not Found", "404, there is no such API: check that alertmanager.url is Alertmanager's"),
        ("302 Found", "302, it redirects, which is not followed: alertmanager.url has to be the address of"),
        ("308 Permanent Redirect", "308, it redirects"),
        ("500 Internal Server Error", "500, it should answer 200"),
    ],
)
async def test_a_refusal_says_what_to_do(reply, why):
    async with fake_alertmanager(held=answer(reply)) as upstream, ClientSession() as session:
        with pytest.raises(UpstreamRefused, match=why):
            await AlertmanagerClient(session, URL(upstream.url), 5).alerts()


@pytest.mark.parametrize("status", ["301 Moved Permanently", "303 See Other", "307 Temporary Redirect"])
async def test_its_credentials_are_shown_to_nobody_else(status):
    access = Access(authorization=lambda: "Bearer t-1")
    async with fake_alertmanager() as other, ClientSession() as session:
        elsewhere = answer(status, Location=f"{other.url}/elsewhere")
        async with fake_alertmanager(held=elsewhere) as upstream:
            with pytest.raises(UpstreamRefused, match="it redirects"):
                await AlertmanagerClient(session, URL(upstream.url), 5, access=access).alerts()
        assert other.connections == 0


async def test_no_answer_is_away_and_no_refusal(unused_tcp_port):
    async with fake_alertmanager(silent=True) as upstream, ClientSession() as session:
        for url, timeout in ((upstream.url, 0.05), (f"http://127.0.0.1:{unused_tcp_port}", 5)):
            with pytest.raises(UpstreamError) as caught:
                await AlertmanagerClient(session, URL(url), timeout).cluster()
            assert not isinstance(caught.value, UpstreamRefused)
