"""What there is to say about settings that are fine alone."""

from __future__ import annotations

from typing import NamedTuple


class Remark(NamedTuple):
    """Something to say about several settings at once."""

    keys: tuple[str, ...]
    """The first one that was given lends the remark its origin."""
    message: str
