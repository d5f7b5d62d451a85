"""A Prometheus takes a proxy for its Alertmanager, whatever it was told to say to it, and what it sends stays its own.

One Prometheus sends to recorders, directly and through a proxy of each mode, with each kind of credentials, and to
every Alertmanager there is, below a route prefix. It scrapes what it sends to.
"""

from __future__ import annotations

import asyncio
import shutil
from base64 import b64encode
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from doors import Door
from fakes import FakeAlertmanager, Received, fake_alertmanager
from real import READY_WITHIN, Program, Proxy, alertmanager, alertmanagers, get, metric, prometheus, proxy

MODES = ("transparent", "transparent_with_recommendations", "enriched")
PREFIX = "/team/am"
CREDENTIALS: dict[str, dict[str, Any]] = {
    "none": {},
    "basic auth": {"basic_auth": {"username": "prom", "password": "s3cr3t:ü"}},
    "bearer token": {"authorization": {"credentials": "tok-3n"}},
    "a scheme of one's own": {"authorization": {"type": "Sigil", "credentials": "a/b+c=="}},
}
AUTHORIZATION = {
    "none": None,
    "basic auth": f"Basic {b64encode('prom:s3cr3t:ü'.encode()).decode()}",
    "bearer token": "Bearer tok-3n",
    "a scheme of one's own": "Sigil a/b+c==",
}
CONFIG = {"route": {"receiver": "nobody"}, "receivers": [{"name": "nobody"}]}
RULE = {
    "alert": "Fires",
    "expr": "vector(1)",
    "labels": {"severity": "page", "path": "a&b <c>"},
    "annotations": {"summary": "ü \u2028 %2F"},
}


@dataclass(frozen=True)
class Seen:
    """What was there when everybody had got the alert."""

    direct: list[Received]
    proxied: dict[str, list[Received]]
    """By the mode of the proxy."""
    behind: dict[str, list[dict[str, Any]]]
    """The alerts that each Alertmanager holds, by its path."""
    asked: dict[str, set[str]]
    """By the mode of the proxy: what Prometheus takes for its Alertmanager."""
    sent_to: set[str]
    """Where Prometheus sends, as its page of Alertmanagers says."""
    meant: set[str]
    """Where it should."""
    health: dict[str, tuple[str, str]]
    """By the address of each target that it scrapes: its health, and the last error."""
    failed: float
    """How many alerts were in POSTs that failed. Those that came before anybody was known are none of them."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def seen(door: Door, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    if not shutil.which("prometheus") or not alertmanagers():
        pytest.fail("no prometheus or no alertmanager on PATH: `make programs` installs them")
    directory = tmp_path_factory.mktemp("prometheus")
    async with AsyncExitStack() as stack:
        direct = await stack.enter_async_context(fake_alertmanager())
        recorders = {mode: await stack.enter_async_context(fake_alertmanager()) for mode in MODES}
        started = (alertmanager(path, CONFIG, directory, prefix=PREFIX) for path in alertmanagers())
        ams = dict(zip(alertmanagers(), [await stack.enter_async_context(am) for am in started], strict=True))
        behind = recorders | ams
        fronts = (front(stack, door, directory, name, f"{one.url}{PREFIX}") for name, one in behind.items())
        proxies = dict(zip(behind, await asyncio.gather(*fronts), strict=True))
        own = [one.admin.removeprefix("http://") for one in proxies.values()]
        senders = list(sending(door, direct, proxies))
        also = {
            "global": {"evaluation_interval": "1s", "scrape_interval": "1s"},
            "alerting": {"alertmanagers": senders},
            "scrape_configs": [
                {"job_name": "proxies", **to(Door(), *own)},
                *(
                    {"job_name": path, "metrics_path": f"{PREFIX}/metrics", **to(door, proxies[path].target)}
                    for path in ams
                ),
            ],
        }
        prom = await stack.enter_async_context(prometheus([RULE], [], directory, resend_delay=1, also=also))
        fakes, kinds = [direct, *recorders.values()], 1 if door.credentials else len(CREDENTIALS)
        try:
            async with asyncio.timeout(READY_WITHIN):
                while not all(len(first(fake.posts)) == kinds for fake in fakes):
                    await asyncio.sleep(0.1)
                while not all([await held(am) for am in ams.values()]):
                    await asyncio.sleep(0.1)
                while not (health := await scraped_by(prom, len(ams) + len(proxies))):
                    await asyncio.sleep(0.1)
        except TimeoutError:
            pytest.fail(f"not told or not scraped in {READY_WITHIN:.0f} s; so far: {[first(f.posts) for f in fakes]}")
        known = await get(f"{prom.url}/api/v1/alertmanagers")
        return Seen(
            direct.posts,
            {mode: recorder.posts for mode, recorder in recorders.items()},
            {path: await held(am) for path, am in ams.items()},
            {mode: {proxies[mode].target} for mode in MODES},
            {one["url"] for one in known["data"]["activeAlertmanagers"]},
            {f"{one['scheme']}://{one['static_configs'][0]['targets'][0]}{PREFIX}/api/v2/alerts" for one in senders},
            health,
            await metric(prom.url, "prometheus_notifications_errors_total"),
        )


async def front(stack: AsyncExitStack, door: Door, directory: Path, name: str, url: str) -> Proxy:
    """Run a proxy before the recorder of a mode, or in mode enriched before an Alertmanager."""
    flags = f"--enrichment.mode={name if name in MODES else 'enriched'}", *door.flags
    return await stack.enter_async_context(proxy(url, directory, *flags))


def sending(door: Door, direct: FakeAlertmanager, proxies: dict[str, Proxy]) -> Iterator[dict[str, Any]]:
    """Yield what prometheus.yml says of each Alertmanager."""
    for own in CREDENTIALS.values():
        said = door.credentials or own
        yield {"path_prefix": PREFIX, **to(Door(), f"127.0.0.1:{direct.port}"), **said}
        for mode in MODES:
            yield {"path_prefix": PREFIX, **to(door, proxies[mode].target), **said}
    for path in alertmanagers():
        yield {"path_prefix": f"{PREFIX}/", **to(door, proxies[path].target)}


def to(door: Door, *targets: str) -> dict[str, Any]:
    return {**door.prometheus(), "static_configs": [{"targets": list(targets)}]}


async def held(am: Program) -> list[dict[str, Any]]:
    alerts: list[dict[str, Any]] = await get(f"{am.url}{PREFIX}/api/v2/alerts")
    return alerts


async def scraped_by(prom: Program, targets: int) -> dict[str, tuple[str, str]]:
    """Return the health of what is scraped, once all of it was."""
    found = (await get(f"{prom.url}/api/v1/targets"))["data"]["activeTargets"]
    health = {one["scrapeUrl"]: (one["health"], one["lastError"]) for one in found}
    return health if len(health) == targets and "unknown" not in {state for state, _ in health.values()} else {}


def first(posts: list[Received]) -> dict[str | None, Received]:
    """Return the first POST with each kind of credentials."""
    return {post.header("Authorization"): post for post in reversed(posts)}


def without(names: set[str], post: Received) -> tuple[str, list[tuple[str, str]]]:
    """Return a POST's line and its headers, in their order, without some."""
    return post.line, [(name, value) for name, value in post.headers if name not in names]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("credentials", CREDENTIALS)
def test_line_and_headers_arrive_as_prometheus_sends_them(seen, door, mode, credentials):
    if door.credentials:
        pytest.skip("Prometheus says one thing in Authorization, and here the proxy asks for it")
    authorization = AUTHORIZATION[credentials]
    direct, proxied = first(seen.direct)[authorization], first(seen.proxied[mode])[authorization]
    assert direct.line == f"POST {PREFIX}/api/v2/alerts HTTP/1.1"
    differing = {"Host"} if mode == "transparent" else {"Host", "Content-Length"}
    assert without(differing, proxied) == without(differing, direct)
    assert proxied.header("User-Agent").startswith("Prometheus/")


def test_the_host_that_prometheus_asks_for_arrives(seen):
    assert {mode: {post.header("Host") for post in posts} for mode, posts in seen.proxied.items()} == seen.asked


def test_a_transparent_proxy_passes_the_same_bytes(seen):
    passed = {post.body for post in first(seen.proxied["transparent"]).values()}
    assert passed <= {post.body for post in seen.direct}


def test_labels_are_added_in_mode_enriched_alone(seen):
    labels = {mode: set(posts[0].alerts[0]["labels"]) for mode, posts in seen.proxied.items()}
    own = set(seen.direct[0].alerts[0]["labels"])
    added = {"ai_severity", "ai_category"}
    assert labels == dict.fromkeys(MODES, own) | {"enriched": own | added}


def test_prometheus_lists_the_proxies_as_its_alertmanagers(seen):
    assert seen.sent_to == seen.meant


def test_every_alertmanager_behind_a_prefix_holds_the_alert_labelled(seen):
    for path, alerts in seen.behind.items():
        assert [alert["labels"]["ai_severity"] for alert in alerts] == ["critical"], path


def test_all_that_prometheus_scrapes_is_well(seen):
    assert set(seen.health.values()) == {("up", "")}


def test_no_post_failed(seen):
    assert seen.failed == 0
