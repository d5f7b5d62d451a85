"""Each row of the threat model names a test that there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "explanation" / "threat-model.md"
HEADS = ("what is tried", "---")


def rows() -> list[tuple[str, str]]:
    """Return what is tried and the tests, of each row."""
    cells = [line.strip("|").split("|") for line in PAGE.read_text().splitlines() if line.startswith("|")]
    return [(row[0].strip(), row[-1]) for row in cells if row[0].strip() not in HEADS]


def test_the_page_is_read():
    assert len(rows()) > 25


@pytest.mark.parametrize("tests", [tests for _, tests in rows()], ids=[what for what, _ in rows()])
def test_a_row_names_a_test_that_there_is(tests: str):
    named = re.findall(r"`([^`]+)::(\w+)`", tests)
    assert named
    for file, function in named:
        assert re.search(rf"^(async )?def {function}\(", (ROOT / file).read_text(), re.MULTILINE), f"{file}::{function}"
