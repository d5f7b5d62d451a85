"""Secrets that tests hand to programs, searched for in whatever the run printed and stored.

Handed to a proxy in its environment they are known by the variable's name; any other way, a test calls `handed`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

_SECRET = re.compile(r"(API_KEY|TOKEN|PASSWORD|CREDENTIALS|SECRET)$")
_CHUNK = 1 << 20
FEWEST = 6
"""Characters; what is shorter stands in any text by chance."""
_given: set[bytes] = set()
_found: list[str] = []


def handed(*secrets: str) -> None:
    """Remember secrets that no output may show."""
    for secret in secrets:
        assert len(secret) >= FEWEST, "a secret that is too short to be searched for"
        _given.add(secret.encode())


def handed_in(environment: Mapping[str, str]) -> None:
    """Remember the secrets among the variables of a program."""
    handed(*(value for name, value in environment.items() if _SECRET.search(name) and value))


def search(text: str, where: str) -> None:
    """Note which secrets stand in a text; `found` tells."""
    _found.extend(where for secret in _given if secret in text.encode(errors="surrogateescape"))


def found(directory: Path) -> list[str]:
    """Return where secrets stand: in the texts that were searched, and in the files below `directory`."""
    return [*_found, *(str(path) for path in sorted(directory.rglob("*")) if path.is_file() and _shows(path))]


def _shows(path: Path) -> bool:
    return any(secret in chunk for chunk in _chunks(path) for secret in _given)


def _chunks(path: Path) -> Iterator[bytes]:
    """Yield a file in pieces that overlap by more than a secret is long."""
    overlap = max((len(secret) for secret in _given), default=0)
    with path.open("rb") as file:
        before = b""
        while chunk := file.read(_CHUNK):
            yield before + chunk
            before = chunk[-overlap:]
