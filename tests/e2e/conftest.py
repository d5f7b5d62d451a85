from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path

import leaks
import pytest
import pytest_asyncio
from doors import DOORS, Door
from real import PeersLate, alertmanagers

pytest.register_assert_rewrite(
    "alone", "disturbed", "faults", "lab", "naive", "replicas", "soak", "unavoidable", "unharmed", "with_prometheus"
)

AT_ONCE = 10
"""Scenarios that run side by side: they mostly wait."""
TURNS = 3
"""How often a scenario is played at most in which the Alertmanagers themselves may be what told twice."""
APART = 0.5
"""Seconds between two that begin: to start their programs is what costs them CPU."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "e2e" in item.path.parts:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="module", autouse=True)
def unmeasured() -> Iterator[None]:
    """Leave the processes that are started here out of the coverage: to trace them is half of their CPU time.

    Each line has tests of its own that are measured; here the programs have to keep time with each other.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("COVERAGE_PROCESS")]:
            patch.delenv(name)
        yield


@pytest.fixture(scope="session", autouse=True)
def no_secret_in_any_output(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fail the run when a secret that a proxy was handed stands in anything that the run printed or stored."""
    yield
    assert leaks.found(tmp_path_factory.getbasetemp()) == [], "there is a secret in it"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    for text in (report.longreprtext, *(content for _, content in report.sections)):
        leaks.search(text, f"what was printed by {item.nodeid}")
    return report


@pytest.fixture(params=alertmanagers() or [None], ids=lambda path: str(path).replace("/", " ").strip())
def am_binary(request: pytest.FixtureRequest) -> str:
    """Each Alertmanager there is."""
    if request.param is None or not shutil.which("prometheus"):
        pytest.fail("no prometheus or no alertmanager on PATH: `make programs` installs them")
    return str(request.param)


@pytest.fixture(params=DOORS.values(), ids=DOORS.keys(), scope="module")
def door(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Door:
    """Each way in at the proxy."""
    return request.param(tmp_path_factory.mktemp("door"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def side_by_side(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[dict[str, asyncio.Task[None]]]:
    """Run the scenarios of a module at the same time; each test awaits its own, by its node id.

    A scenario is a parameter of that name: a coroutine function that takes an Alertmanager's path and a directory.
    """
    turn, beginning = asyncio.Semaphore(AT_ONCE), asyncio.Lock()

    async def play(item: pytest.Function) -> None:
        if item.callspec.params["am_binary"] is None:
            return  # `am_binary` says what is missing
        for _ in range(TURNS - 1):
            try:
                await begin(item)
            except PeersLate as exc:
                print(f"{item.nodeid} is played anew. {exc}")
            else:
                return
        await begin(item)

    async def begin(item: pytest.Function) -> None:
        async with turn:
            async with beginning:
                await asyncio.sleep(APART)
            await item.callspec.params["scenario"](
                item.callspec.params["am_binary"], Path(tmp_path_factory.mktemp("scenario"))
            )

    chosen = [item for item in request.session.items if item.path == request.path and "scenario" in item.fixturenames]
    tasks = {item.nodeid: asyncio.create_task(play(item), name=item.nodeid) for item in chosen}
    yield tasks
    for task in tasks.values():
        task.cancel()
    await asyncio.gather(*tasks.values(), return_exceptions=True)
