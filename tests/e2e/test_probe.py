"""`check-config --probe` against real Alertmanagers, with the mistakes that it is for."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from fakes import posted, stamp
from ports import free_port
from probing import probed
from real import ROOT, Program, alertmanager, answers, clustered, get, proxy, running, send
from redis_servers import redis_server
from serving import serving

FINE = {
    "route": {
        "receiver": "all",
        "group_by": ["alertname"],
        "routes": [{"receiver": "page", "matchers": ['ai_severity="critical"']}],
    },
    "receivers": [{"name": "all"}, {"name": "page"}],
}
WRONG: dict[str, Any] = {
    "route": {
        "receiver": "all",
        "group_by": ["alertname", "ai_category"],
        "routes": [
            {"receiver": "page", "match": {"ai_severity": "page"}},
            {"receiver": "page", "match_re": {"ai_category": "disk|net"}},
            {"receiver": "page", "matchers": ['ai_confidence="high"', 'team="a,b"']},
            {"receiver": "page", "matchers": ["ai_severity=info"], "routes": [{"matchers": ['ai_severity="noise"']}]},
        ],
    },
    "inhibit_rules": [
        {
            "source_matchers": ['ai_severity="critical"'],
            "target_match": {"severity": "warning"},
            "equal": ["cluster", "ai_severity"],
        }
    ],
    "receivers": FINE["receivers"],
}
LABELS = {"ai_severity": "info", "ai_category": "other"}


async def check(directory: Path, settings: dict[str, Any], *arguments: str) -> tuple[int, str]:
    """Run the command in a process of its own; return its exit status and what it printed."""
    file = directory / "proxy.yaml"
    file.write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "proxy", "check-config", "--probe", str(file), *arguments]
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=directory,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert not err, err
    return process.returncode or 0, out.decode()


async def silence(url: str, *matchers: tuple[str, str]) -> None:
    content = {
        "matchers": [{"name": name, "value": value, "isRegex": False, "isEqual": True} for name, value in matchers],
        "startsAt": stamp(0),
        "endsAt": stamp(3600),
        "createdBy": "test",
        "comment": "test",
    }
    async with (
        aiohttp.ClientSession() as client,
        client.post(f"{url}/api/v2/silences", json=content) as answered,
    ):
        assert answered.status == 200, await answered.text()


async def test_an_installation_that_is_fine_is_fine_and_stays_as_it_is(am_binary, tmp_path):
    home = tmp_path / "here"
    home.mkdir()
    async with (
        alertmanager(am_binary, FINE, tmp_path) as am,
        proxy(am.url, tmp_path, "--enrichment.mode=enriched") as px,
    ):
        assert await send(px.url, posted("A"), posted("B", severity="critical")) == 200
        await silence(am.url, ("team", "db"))
        held = [await get(f"{am.url}/api/v2/{what}") for what in ("alerts", "silences")]
        admin, listens = px.admin.removeprefix("http://"), px.target
        settings = {
            "alertmanager": {"url": am.url},
            "web": {"admin_listen_address": admin, "listen_address": listens},
            # As it is configured; the running proxy was started otherwise, and its word counts.
            "enrichment": {"mode": "transparent"},
        }
        code, out = await check(home, settings, "-o", "json")
        assert [await get(f"{am.url}/api/v2/{what}") for what in ("alerts", "silences")] == held
    found = json.loads(out)
    assert code == 0
    assert {one["level"] for one in found} == {"ok"}, found
    checks = ["alertmanager", "cluster", "load balancer", "double sending", "routes", "silences", "proxy", "store"]
    assert [one["check"] for one in found] == [*checks, "model"]
    assert found[6]["message"].startswith(f"a proxy runs at {px.admin}: version ")
    assert found[6]["message"].endswith("mode enriched")
    assert [one.name for one in home.iterdir()] == ["proxy.yaml"]


async def test_every_mistake_is_found_at_a_real_alertmanager(am_binary, tmp_path):
    async with alertmanager(am_binary, WRONG, tmp_path, prefix="/am") as am:
        url = f"{am.url}/am"
        twice = [posted("Twice"), posted("Twice", **LABELS), posted("Once", **LABELS)]
        assert await send(am.url, *twice, path="/am/api/v2/alerts") == 200
        await silence(url, ("ai_severity", "page"))
        await silence(url, ("ai_category", "storage"))
        # Without its prefix, as in somebody's first attempt.
        settings = {"alertmanager": {"url": am.url}, "enrichment": {"mode": "enriched"}}
        code, out = await check(tmp_path, settings)
    lines = out.splitlines()
    assert code == 1
    for begins in (
        f"error    alertmanager: no Alertmanager at {am.url}, but at {url}: set alertmanager.url: {url}, and senders",
        f"ok       alertmanager: {url}: Alertmanager ",
        "error    double sending: 1 alert (Twice) is held with our labels and without them",
        "ok       routes: route (receiver all): group_by ai_category: ",
        'error    routes: route.routes[0] (receiver page): ai_severity="page" can never match',
        'error    routes: route.routes[1] (receiver page): ai_category=~"disk|net" can never match',
        'error    routes: route.routes[2] (receiver page): ai_confidence="high" can never match',
        "error    routes: route.routes[3].routes[0]",
        'warning  routes: inhibit_rules[0] source: ai_severity="critical": whether alerts are muted depends',
        "error    routes: inhibit_rules[0]: equal ai_severity: ",
    ):
        assert sum(line.startswith(begins) for line in lines) == 1, (begins, out)
    silences = [line for line in lines if line.startswith("warning  silences: silence ")]
    assert len(silences) == 2
    assert any('ai_severity="page" can never match' in line for line in silences)
    assert any('ai_category="storage": what it mutes depends on what a model said' in line for line in silences)


async def test_warnings_alone_are_exit_0(am_binary, tmp_path):
    async with alertmanager(am_binary, FINE, tmp_path) as am:
        code, out = await check(tmp_path, {"alertmanager": {"url": am.url}})
    assert code == 0
    assert 'warning  routes: 1 matcher on our labels, ai_severity="critical" the first: in mode transparent' in out
    assert "error" not in out


@asynccontextmanager
async def balancer(*ports: int):
    """Give each connection to the next of several servers."""
    turns = 0

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(65536):
                writer.write(chunk)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal turns
        turns += 1
        to = await asyncio.open_connection("127.0.0.1", ports[turns % len(ports)])
        await asyncio.gather(pipe(reader, to[1]), pipe(to[0], writer))

    async with serving(serve) as own:
        yield f"http://127.0.0.1:{own}"


def port(of: Program) -> int:
    return int(of.url.rsplit(":", 1)[1])


@pytest.mark.proof  # each Alertmanager twice; tests/test_probe_reaching.py and test_probe_findings.py have it in short
async def test_two_in_a_cluster_behind_a_load_balancer_and_one_by_one(am_binary, tmp_path):
    async with clustered(am_binary, FINE, tmp_path) as both, balancer(*map(port, both)) as between:
        with redis_server(tmp_path) as redis:
            balanced, shared, alone, said = await asyncio.gather(
                probed(between),
                probed(both[0].url, store__url=redis.url, store__timeout="1s", enrichment__mode="enriched"),
                probed(both[0].url),
                probed(both[0].url, alertmanager__replicas=1),
            )
    assert "connections were answered by 2 Alertmanagers" in balanced.one("load balancer")
    assert balanced.one("load balancer").startswith("error: ")
    assert shared.fine, shared
    assert shared.one("cluster") == "ok: ready, 2 peers, itself among them, and their proxies share a store"
    assert alone.one("cluster").startswith("warning: there are 2 proxies, and store.url is not shared")
    assert alone.one("load balancer").startswith("ok: ")
    assert said.of("cluster")[0].startswith("error: Alertmanager has 2 peers, itself among them, and alertmanager.repl")


async def test_one_that_waits_for_its_peers_is_settling(am_binary, tmp_path):
    cluster = (f"--cluster.listen-address=127.0.0.1:{free_port()}", "--cluster.settle-timeout=60s")
    home, at = tmp_path / "settling", free_port()
    home.mkdir()
    (home / "alertmanager.yml").write_text(yaml.safe_dump(FINE))
    url = f"http://127.0.0.1:{at}"
    command = [
        *(am_binary, f"--config.file={home}/alertmanager.yml", f"--storage.path={home}"),
        *(f"--web.listen-address=127.0.0.1:{at}", *cluster),
    ]
    async with running(Program(url, home / "log", command, f"{url}/-/healthy")) as am:
        await answers(f"{am.url}/api/v2/status", am)
        found = await probed(am.url)
    assert found.of("cluster")[0].startswith("warning: the cluster is settling, with 1 peer")


async def test_tls_is_not_spoken_there(am_binary, tmp_path):
    async with alertmanager(am_binary, FINE, tmp_path) as am:
        found = await probed(am.url.replace("http:", "https:"))
    assert "no TLS is spoken there" in found.of("alertmanager")[0]
    assert "want http:// in alertmanager.url" in found.of("alertmanager")[0]
