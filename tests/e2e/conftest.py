from __future__ import annotations

import shutil

import pytest
from real import alertmanagers


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "e2e" in item.path.parts:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(params=alertmanagers() or [None], ids=lambda path: str(path).replace("/", " ").strip())
def am_binary(request: pytest.FixtureRequest) -> str:
    """Each Alertmanager there is."""
    if request.param is None or not shutil.which("prometheus"):
        pytest.fail("no prometheus or no alertmanager on PATH: `make programs` installs them")
    return str(request.param)
