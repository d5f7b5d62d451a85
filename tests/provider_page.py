"""What docs/LLM_PROVIDERS.md says, as values."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "LLM_PROVIDERS.md"


def sections() -> dict[str, str]:
    """Return the settings of each provider, by the heading above them."""
    text = PAGE.read_text()
    return dict(re.findall(r"^### (.+?)\n.*?^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))


def table(first: str) -> list[list[str]]:
    """Return the rows of the table whose first heading is `first`, each as its cells."""
    _, _, after = PAGE.read_text().partition(f"\n| {first} |")
    rows = []
    for line in after.splitlines()[2:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line[1:-1].split("|")])
    return rows
