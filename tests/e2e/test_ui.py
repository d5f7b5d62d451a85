"""Alertmanager's own pages through the proxy, in a real browser: an alert with its labels, a silence made and ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import browser as browsers
import pytest
import pytest_asyncio
from browser import Browser, browser
from doors import Door
from fake_provider import FakeProvider, Request, verdict
from fakes import posted
from lab import LIGHT, enriching, grouped, labelling
from real import BUILT, Program, Proxy, alertmanager, get, proxy, webhook

HERE = "//li[.//span[text()='instance=\"db-1\"']]"
"""The alert that all this is about, in the list of alerts."""
OTHER = "//li[.//span[text()='instance=\"web-1\"']]"
ONLY_HERE, ONLY_OTHER = f"{HERE}[not({OTHER})]", f"{OTHER}[not({HERE})]"
SUMMARY = "The disk of db-1 fills up."
COMMENT = "Known, the disk is on its way"

pytestmark = pytest.mark.skipif(
    not (BUILT.exists() and browsers.programs()),
    reason="needs an Alertmanager with its UI, and Chromium: `make tools` brings both",
)


@dataclass
class Place:
    am: Program
    px: Proxy
    prefix: str
    door: Door
    page: Browser

    async def state(self) -> str:
        """Return the state of the alert as Alertmanager has it."""
        return next(
            alert["status"]["state"]
            for alert in await get(f"{self.am.url}{self.prefix}/api/v2/alerts")
            if alert["labels"]["alertname"] == "DiskFull"
        )

    def open(self, path: str = "/") -> None:
        self.page.open(f"{self.door.page(self.px.target)}{path}")

    def list_alerts(self) -> None:
        """Go to the list of alerts. Its groups stay open once they are."""
        self.page.click("//a[text()='Alerts']")
        self.page.arrive("#/alerts")


def severe_disk(request: Request) -> Any:
    if "DiskFull" in request.prompt:
        return verdict(severity="critical", category="storage", summary=SUMMARY)
    return verdict(severity="info", category="performance")


@pytest_asyncio.fixture(params=["", "/am"], ids=["no prefix", "route prefix"])
async def place(request: pytest.FixtureRequest, door: Door, tmp_path: Any) -> AsyncIterator[Place]:
    """Two alerts that a model has labelled, and a browser that has seen nothing yet."""
    prefix = request.param
    async with AsyncExitStack() as stack:
        hook = await stack.enter_async_context(webhook())
        model = await stack.enter_async_context(FakeProvider(severe_disk))
        am = await stack.enter_async_context(alertmanager(str(BUILT), grouped(hook.url), tmp_path, prefix=prefix))
        env = {"LLM_API_KEY": "sk-ui-canary", "PYTHONPATH": LIGHT}
        px = await stack.enter_async_context(
            proxy(f"{am.url}{prefix}", tmp_path, *enriching(model), *door.flags, env=env)
        )
        await labelling(px)
        alerts = [posted("DiskFull", instance="db-1", severity="warning"), posted("Slow", instance="web-1")]
        assert await door.send(px.target, *alerts, path=f"{prefix}/api/v2/alerts") == 200
        opened = browser(*door.browser)
        page = await asyncio.to_thread(opened.__enter__)
        stack.push_async_callback(asyncio.to_thread, opened.__exit__, None, None, None)
        yield Place(am, px, prefix, door, page)


async def test_a_person_sees_an_alert_silences_it_and_ends_the_silence(place: Place) -> None:
    await asyncio.to_thread(sees_the_alert, place)
    await asyncio.to_thread(filters, place)
    assert await place.state() == "active"
    silence = await asyncio.to_thread(silences_it, place)
    assert await place.state() == "suppressed"
    await asyncio.to_thread(sees_the_silence, place, silence)
    await asyncio.to_thread(ends_the_silence, place)
    assert await place.state() == "active"
    await asyncio.to_thread(sees_the_status, place)
    asked = await asyncio.to_thread(place.page.asked)
    assert {urlsplit(one.url).netloc.rpartition("@")[2] for one in asked} == {place.px.target}
    assert [one for one in asked if one.error or one.status is None or one.status >= 400] == []
    assert {"GET", "POST", "DELETE"} == {one.method for one in asked}
    assert await asyncio.to_thread(place.page.complaints) == []
    sheets = await asyncio.to_thread(place.page.rules)
    assert len(sheets) == 3
    assert all(sheets)


def sees_the_alert(place: Place) -> None:
    """From the root, which leads to the prefix where there is one."""
    place.open()
    place.page.arrive(f"{place.px.target}{place.prefix}/#/alerts")
    place.page.click("//button[contains(., 'Expand all groups')]")
    for label in ('severity="warning"', 'ai_severity="critical"', 'ai_category="storage"'):
        place.page.see(f"{HERE}//span[text()='{label}']")
    place.page.see(f"{OTHER}//span[text()='ai_severity=\"info\"']")
    place.page.click(f"{HERE}//button[contains(., 'Info')]")
    place.page.see(f"{HERE}//tr[th[text()='ai_summary:']]/td[text()='{SUMMARY}']")


def filters(place: Place) -> None:
    """By a label that the proxy added: written by hand, then by the button beside the label."""
    place.page.type("//input[@id='filter-bar-matcher']", 'ai_severity="info"')
    place.page.click("//div[@class='input-group-append']/button[text()='+']")
    place.page.arrive("filter=")
    place.page.see(ONLY_OTHER)
    place.page.click("//button[text()='×']")
    place.page.click(f"{HERE}//div[span[text()='ai_severity=\"critical\"']]/button")
    place.page.see(ONLY_HERE)


def silences_it(place: Place) -> str:
    """Silence the alert with all its labels, and return the silence's id."""
    place.page.click(f"{HERE}//a[normalize-space(.)='Silence']")
    place.page.see("//h1[text()='New Silence']")
    place.page.see("//*[contains(text(), 'ai_severity=\"critical\"')]")
    place.page.type("//div[label/strong[text()='Creator']]/input", "on-call")
    place.page.type("//div[label/strong[text()='Comment']]/textarea", COMMENT)
    place.page.click("//button[text()='Preview Alerts']")
    place.page.see("//strong[text()='Affected alerts: 1']")
    place.page.click("//button[text()='Create']")
    place.page.see(f"//div[text()='{COMMENT}']")
    place.page.see("//strong[text()='Affected alerts: 1']")
    return urlsplit(place.page.url).fragment.rpartition("/")[2]


def sees_the_silence(place: Place, silence: str) -> None:
    place.page.click("//a[text()='Silences']")
    place.page.see(f"//a[text()='View' and @href='#/silences/{silence}']")
    place.page.see("//*[text()='ai_severity=critical']")
    place.list_alerts()
    place.page.see(ONLY_OTHER)
    place.page.click("//label[@for='Silenced']")
    place.page.click(f"{HERE}//a[contains(., 'Silenced') and @href='#/silences/{silence}']")
    place.page.see(f"//div[text()='{COMMENT}']")


def ends_the_silence(place: Place) -> None:
    place.page.click("//a[text()='Silences']")
    place.page.click("//button[text()='Expire']")
    place.page.click("//button[text()='Confirm']")
    place.page.click("//button[contains(., 'Expired')]")
    place.page.see("//a[text()='Recreate']")
    place.list_alerts()
    place.page.see(f"{HERE}//a[normalize-space(.)='Silence']")


def sees_the_status(place: Place) -> None:
    place.page.click("//a[text()='Status']")
    place.page.see("//code[contains(., 'group_by')]")
    place.page.see("//*[text()='GoVersion:']")
