"""Alertmanager's pages in a real Chromium, as a person uses them, and what the browser asked for meanwhile.

Everything here blocks: call it in a thread. Whatever is looked for is waited for.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from selenium import webdriver
from selenium.common.exceptions import (
    ElementClickInterceptedException,
    ElementNotInteractableException,
    NoSuchElementException,
    StaleElementReferenceException,
    TimeoutException,
)
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support import expected_conditions as seen
from selenium.webdriver.support.wait import WebDriverWait

WITHIN = 30.0
"""Seconds until what is waited for must be there."""
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # as root there is none
    "--disable-dev-shm-usage",  # containers have little of it
    "--disable-gpu",
    "--window-size=1200,1600",
    "--disable-background-networking",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",  # whatever else it might ask for by itself
)
LOOKS_EVERY = 0.05
"""Seconds between two looks."""

DRAWN_ANEW = (
    ElementClickInterceptedException,
    ElementNotInteractableException,
    NoSuchElementException,
    StaleElementReferenceException,
)
"""What a click meets on a page that is still being drawn."""


def programs() -> tuple[str, str] | None:
    """Return the paths of Chromium and its driver; None: this machine has no such pair."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    return (chromium, driver) if chromium and driver else None


T = TypeVar("T")


@dataclass(slots=True)
class Asked:
    """One request of the browser."""

    method: str
    url: str
    status: int | None = None
    error: str | None = None
    over: bool = False


class Browser:
    def __init__(self, driver: webdriver.Chrome) -> None:
        self._driver = driver
        self._wait = WebDriverWait(driver, WITHIN, poll_frequency=LOOKS_EVERY)
        self._asked: dict[str, Asked] = {}
        self._redirected: list[Asked] = []

    @property
    def url(self) -> str:
        return str(self._driver.current_url)

    def open(self, url: str) -> None:
        self._driver.get(url)

    def see(self, xpath: str) -> WebElement:
        """Return what is at `xpath`, once it can be seen."""
        return self._until(seen.visibility_of_element_located((By.XPATH, xpath)), xpath)

    def click(self, xpath: str) -> None:
        """Click what is at `xpath`, once it can be clicked. What is drawn anew meanwhile is looked for once more."""
        self._until(lambda _: self._clicked(xpath), xpath)

    def rules(self) -> list[int]:
        """Return how many rules each style sheet has: none where the browser did not take it for one."""
        count = "return [...document.styleSheets].map(sheet => sheet.cssRules.length)"
        found: list[int] = self._driver.execute_script(count)
        return found

    def _until(self, there: Callable[[webdriver.Chrome], T], what: str) -> T:
        try:
            return self._wait.until(there)
        except TimeoutException:
            shown = self._driver.find_element(By.TAG_NAME, "body").text
            raise AssertionError(f"{what} did not come in {WITHIN:.0f} s. {self.url} shows:\n{shown}") from None

    def _clicked(self, xpath: str) -> bool:
        with contextlib.suppress(*DRAWN_ANEW):
            self._driver.find_element(By.XPATH, xpath).click()
            return True
        return False

    def type(self, xpath: str, text: str) -> None:
        """Write `text` over what is in a field."""
        field = self.see(xpath)
        field.clear()
        field.send_keys(text)

    def arrive(self, part: str) -> None:
        """Wait until `part` is in the address."""
        self._until(seen.url_contains(part), f"an address with {part}")

    def asked(self) -> Sequence[Asked]:
        """Return every request since the start, once all are over."""
        self._until(lambda _: self._all_over(), "an end of all requests")
        return [*self._redirected, *self._asked.values()]

    def complaints(self) -> list[str]:
        """Return what the console says is wrong."""
        return [
            entry["message"] for entry in self._driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")
        ]

    def _all_over(self) -> bool:
        for entry in self._driver.get_log("performance"):
            said = json.loads(entry["message"])["message"]
            self._note(said["method"], said["params"])
        return all(asked.over for asked in self._asked.values())

    def _note(self, method: str, told: dict) -> None:
        key = told.get("requestId", "")
        if method == "Network.requestWillBeSent":
            if told["request"]["url"].startswith("data:"):
                return  # goes nowhere
            if "redirectResponse" in told:
                before = self._asked[key]
                before.status, before.over = told["redirectResponse"]["status"], True
                self._redirected.append(before)
            self._asked[key] = Asked(told["request"]["method"], told["request"]["url"])
        elif key in self._asked:
            match method:
                case "Network.responseReceived":
                    self._asked[key].status = told["response"]["status"]
                case "Network.loadingFailed":
                    self._asked[key].error, self._asked[key].over = told["errorText"], True
                case "Network.loadingFinished":
                    self._asked[key].over = True


@contextlib.contextmanager
def browser(*flags: str) -> Iterator[Browser]:
    """Run a Chromium of its own, with nothing in its memory."""
    found = programs()
    assert found, "no chromium or no chromedriver on PATH"
    options = webdriver.ChromeOptions()
    options.binary_location, driver = found
    for flag in (*FLAGS, *flags):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    # With a path selenium looks for no driver of its own, which it would download.
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield Browser(chrome)
    finally:
        chrome.quit()
