"""Sizes as people write them."""

from __future__ import annotations

import re
from typing import Annotated, Final

from proxy.config.kinds import Kind

_UNITS: Final = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


class SizeKind(Kind[int]):
    """A number of bytes."""

    name = "size"
    metavar = "SIZE"
    want = "want for example 64MiB"

    def __init__(self, low: str, high: str) -> None:
        self._low, self._high = low, high
        self.name = f"size, {low} to {high}"

    def _parse(self, text: str) -> int:
        size = _bytes(text)
        if size is None:
            raise ValueError(f"bad size {text!r}, it is a whole number and its unit: KiB, MiB or GiB; {self.want}")
        if not (_bytes(self._low) or 0) <= size <= (_bytes(self._high) or 0):
            raise ValueError(f"{text} is out of range, want {self._low} to {self._high}")
        return size

    def show(self, value: int) -> str:
        unit = max((unit for unit, of in _UNITS.items() if value % of == 0), key=_UNITS.__getitem__)
        return f"{value // _UNITS[unit]}{unit}"


Size = Annotated[int, SizeKind("64KiB", "1GiB")]


def _bytes(text: str) -> int | None:
    found = re.fullmatch(r"([0-9]{1,10}) ?(KiB|MiB|GiB)", text)
    return int(found[1]) * _UNITS[found[2]] if found else None
