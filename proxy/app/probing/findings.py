"""What a check finds, and how a check is run: to its end, or to its deadline, and never into another's way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

SHOWN: Final = 10
"""Findings of one kind that are told one by one."""


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line for the operator."""

    check: str
    """Which check has found it."""
    level: Level
    message: str
    """What is so, and what to do about it. Never holds a secret."""


async def finished(check: str, findings: AsyncIterator[Finding], seconds: float) -> list[Finding]:
    """Return what a check finds within `seconds`; what it has found before it fails, or is late, counts as well."""
    found: list[Finding] = []
    try:
        async with asyncio.timeout(seconds):
            async for finding in findings:
                found.append(finding)  # noqa: PERF401 # what came before a failure is kept
    except TimeoutError:
        found.append(Finding(check, Level.ERROR, f"not known: the check was not through within {seconds:g} s"))
    except Exception as exc:  # noqa: BLE001 # a bug in one check must not hide what the others find
        found.append(Finding(check, Level.ERROR, f"not known: a bug of this check ({type(exc).__name__})"))
    return found


def few(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Yield at most SHOWN findings of each level, and how many more there are."""
    told: dict[Level, int] = {}
    check = ""
    for finding in findings:
        check, n = finding.check, told.get(finding.level, 0) + 1
        told[finding.level] = n
        if n <= SHOWN:
            yield finding
    for level, n in told.items():
        if n > SHOWN:
            yield Finding(check, level, f"and {n - SHOWN} more like these")
