"""Durations as people write them, in settings and requests alike."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

WANT: Final = "want for example 30s"

# As in Prometheus: whole numbers, the larger unit first.
_DURATION = re.compile(
    r"(?:(\d{1,12})w)?(?:(\d{1,12})d)?(?:(\d{1,12})h)?(?:(\d{1,12})m)?(?:(\d{1,12})s)?(?:(\d{1,12})ms)?", re.ASCII
)


def parse_duration(text: str) -> timedelta:
    """Return the duration that `text` stands for, longer than zero. Raises ValueError with what to write instead."""
    bad = f"bad duration {text!r}"
    if re.fullmatch(r"[0-9.]+", text):
        raise ValueError(f"{bad}, it needs a unit: ms, s, m, h, d or w; {WANT}")
    if text.startswith("-"):
        raise ValueError(f"{bad}, it cannot be negative; {WANT}")
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ValueError(f"{bad}, {WANT}")
    weeks, days, hours, minutes, seconds, milliseconds = (int(part or 0) for part in found.groups())
    try:
        value = timedelta(
            weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds, milliseconds=milliseconds
        )
    except OverflowError:
        raise ValueError(f"{bad}, it is too long; {WANT}") from None
    if not value:
        raise ValueError(f"{bad}, it must be longer than zero; {WANT}")
    return value


def format_duration(value: timedelta) -> str:
    """Return `value` as it is written in a configuration, to the millisecond: `500ms`, `1h30m`, `24h`, `7d`."""
    milliseconds = value // timedelta(milliseconds=1)
    units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)]
    if milliseconds < 2 * 86_400_000:
        units = units[1:]  # people say 24h and 36h, and days from two days on
    text = ""
    for unit, size in units:
        count, milliseconds = divmod(milliseconds, size)
        if count:
            text += f"{count}{unit}"
    return text or "0s"
