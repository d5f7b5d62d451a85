"""The page of differences has a row for each that the tests allow, and none besides."""

from pathlib import Path

from fidelity import Why

PAGE = Path(__file__).parents[1] / "docs" / "explanation" / "fidelity.md"


def test_every_difference_has_its_row_and_its_reason():
    rows = [line.strip("|").split("|", 1) for line in PAGE.read_text().splitlines() if line.startswith("|")]
    told = {
        cells[0].strip(): cells[1].strip() for cells in rows if set(cells[0]) != {"-"} and "difference" not in cells[0]
    }
    assert set(told) == set(Why)
    assert all(len(reason) > 20 for reason in told.values())
