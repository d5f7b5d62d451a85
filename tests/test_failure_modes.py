"""Each row of the page of failure modes names tests that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import test_one_notification as scenarios

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "explanation" / "failure-modes.md"


def rows():
    """Yield the failure and the tests of each row."""
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("|") and cells[0] != "failure" and set(cells[0]) != {"-"}:
            yield cells[0], cells[-1]


def names():
    """The scenarios, and the functions that run them."""
    for name, test in vars(scenarios).items():
        if name.startswith("test_"):
            yield name
            for mark in test.pytestmark:
                yield from mark.kwargs.get("ids", ())


ROWS = dict(rows())
NAMES = set(names())


def test_the_page_and_the_scenarios_are_read():
    assert len(ROWS) > 30
    assert {"kill -9", "kill -9, 50 times", "a silence silences", "failover", "test_a_naive_proxy"} <= NAMES


@pytest.mark.parametrize("tests", ROWS.values(), ids=ROWS.keys())
def test_a_row_names_tests_that_there_are(tests):
    named = re.findall(r"`([^`]+)`", tests)
    assert named, "a failure is not on the page before it has a test"
    assert [name for name in named if name not in NAMES and not any(ROOT.glob(name))] == []
