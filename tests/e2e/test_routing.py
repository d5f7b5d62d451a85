"""Everything else that needs the real Alertmanager: its API and UI through the proxy, recovery, what it lets pass."""

from __future__ import annotations

import asyncio
import json

import aiohttp
from fakes import posted
from ports import free_port
from real import alertmanager, get, metric, proxy, send, webhook
from test_identity import routing

from proxy.alert import fingerprint


async def held(url: str) -> dict[str, dict[str, str]]:
    return {alert["labels"]["alertname"]: alert["labels"] for alert in await get(f"{url}/api/v2/alerts")}


async def test_a_restart_of_the_proxy_keeps_every_label_and_tells_nobody_twice(am_binary, tmp_path):
    async with webhook() as hook, alertmanager(am_binary, routing(hook.url), tmp_path) as am:
        before = None
        for n in range(4):
            # Each start would decide otherwise: by another floor, in another mode, with the rules renamed away.
            mode = ("enriched", "enriched", "transparent", "transparent_with_recommendations")[n]
            async with proxy(am.url, tmp_path, f"--enrichment.mode={mode}") as px:
                assert await send(px.url, posted("Kept", begun=1 if n == 0 else -60, severity="page")) == 200
                labels = await held(am.url)
                assert before in (None, labels)
                before = labels
                assert labels["Kept"]["ai_severity"] == "critical"
                await asyncio.sleep(1.5)
                px.process.kill()
        assert len(hook.told("firing", "Kept")) == 1
        assert len(hook.told("resolved", "Kept")) == 0


async def test_what_alertmanager_holds_when_the_proxy_is_installed_stays_as_it_is(am_binary, tmp_path):
    async with webhook() as hook, alertmanager(am_binary, routing(hook.url), tmp_path) as am:
        old = [posted(f"Old{n}", begun=-5, severity="warning") for n in range(50)]
        assert await send(am.url, *old) == 200
        before = await held(am.url)
        async with proxy(am.url, tmp_path, "--enrichment.mode=enriched") as px:
            assert await send(px.url, *old, posted("New")) == 200
            after = await held(am.url)
        assert {name: after[name] for name in before} == before
        assert "ai_severity" in after["New"]


async def test_the_fingerprints_are_the_real_ones(am_binary, tmp_path):
    async with (
        webhook() as hook,
        alertmanager(am_binary, routing(hook.url), tmp_path) as am,
        proxy(am.url, tmp_path, "--enrichment.mode=enriched") as px,
    ):
        odd = {"text": 'quotes " backslash \\ newline \n <b>&amp; ü 🔥', "empty": "", "a_0": "1"}
        await send(px.url, posted("A"), posted("B", **odd))
        found = await get(f"{am.url}/api/v2/alerts")
    assert len(found) == 2
    for alert in found:
        assert fingerprint(alert["labels"]) == alert["fingerprint"]


async def test_bad_input_gets_alertmanagers_own_answer(am_binary, tmp_path):
    bodies = [
        b"",
        b"[",
        b"{}",
        b'[{"labels":1}]',
        b'[{"labels":{"a":"\xff"}}]',
        b"[null]",
        b"[]",
        b"null",
        b'[{"startsAt":"2026-11-22T10:00:00Z"}]',
        b'[{"labels":{"a":"b"},"endsAt":"x"}]',
        b'\xef\xbb\xbf[{"labels":{"a":"b"}}]',
        json.dumps([{**posted("A"), "endsAt": posted("A")["startsAt"], "startsAt": posted("A")["endsAt"]}]).encode(),
    ]

    async def ask(url: str, content: bytes, content_type: str) -> tuple[int, str, bytes]:
        headers = {"Content-Type": content_type}
        async with (
            aiohttp.ClientSession() as client,
            client.post(f"{url}/api/v2/alerts", data=content, headers=headers) as answered,
        ):
            return answered.status, answered.headers.get("Content-Type", ""), await answered.read()

    async with (
        webhook() as hook,
        alertmanager(am_binary, routing(hook.url), tmp_path) as am,
        proxy(am.url, tmp_path, "--enrichment.mode=enriched") as px,
    ):
        for content in bodies:
            for content_type in ("application/json", "text/plain"):
                try:
                    direct = await ask(am.url, content, content_type)
                except aiohttp.ServerDisconnectedError:
                    # [null] makes Alertmanager drop the connection: there is no answer to relay.
                    assert (await ask(px.url, content, content_type))[0] == 502
                else:
                    assert await ask(px.url, content, content_type) == direct, content


async def test_a_route_prefix_is_found_by_the_url_and_senders_use_it(am_binary, tmp_path):
    async with webhook() as hook, alertmanager(am_binary, routing(hook.url), tmp_path, prefix="/am") as am:
        async with proxy(f"{am.url}/am", tmp_path, "--enrichment.mode=enriched") as px:
            assert await send(px.url, posted("A"), path="/am/api/v2/alerts") == 200
            [alert] = await get(f"{px.url}/am/api/v2/alerts")
            assert "ai_severity" in alert["labels"]
            assert (await get(f"{px.admin}/api/v1/status"))["alertmanager"]["recovered"]
        async with proxy(am.url, tmp_path, "--enrichment.mode=enriched") as px:
            assert not (await get(f"{px.admin}/api/v1/status"))["alertmanager"]["recovered"]
            assert "route-prefix" in px.log.read_text()


async def test_alertmanagers_own_pages_pass(am_binary, tmp_path):
    async with (
        webhook() as hook,
        alertmanager(am_binary, routing(hook.url), tmp_path) as am,
        proxy(am.url, tmp_path) as px,
        aiohttp.ClientSession(auto_decompress=False) as client,
    ):
        for path in ("/", "/-/healthy", "/-/ready", "/metrics", "/api/v2/status", "/favicon.ico", "/nothing"):
            for method in ("GET", "HEAD"):
                found = []
                for url in (am.url, px.url):
                    async with client.request(method, url + path, allow_redirects=False) as answered:
                        names = {name.lower() for name in answered.headers}
                        size = len(await answered.read())
                        found.append((answered.status, names, size if path != "/metrics" else size > 1000))
                assert found[0] == found[1], f"{method} {path}"


async def test_alerts_flow_again_as_soon_as_alertmanager_is_there(am_binary, tmp_path):
    port = free_port()
    async with webhook() as hook, proxy(f"http://127.0.0.1:{port}", tmp_path, "--enrichment.mode=enriched") as px:
        assert await send(px.url, posted("A")) == 502
        async with alertmanager(am_binary, routing(hook.url), tmp_path, port=port):
            assert await send(px.url, posted("B")) == 200
            async with asyncio.timeout(10):
                while not await metric(px.admin, "aiproxy_recovery_last_success"):
                    await asyncio.sleep(0.1)
            assert await send(px.url, posted("C")) == 200
            assert {name for name, labels in (await held(px.url)).items() if "ai_severity" in labels} == {"B", "C"}
