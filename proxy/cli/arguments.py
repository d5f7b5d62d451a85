"""Arguments that are read as settings are."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, TypeVar

from proxy.config.kinds import Kind

T = TypeVar("T")


def read_by(kind: Kind[T]) -> Callable[[str], T]:
    """Return what makes argparse read as the settings do, and complain in their words."""

    def read(text: str) -> T:
        try:
            return kind.parse(text)
        except ValueError as exc:
            raise argparse.ArgumentTypeError(str(exc)) from None

    return read


def checked_by(kind: Kind[Any]) -> Callable[[str], str]:
    """As `read_by`, for what goes to the proxy as it was written."""

    def check(text: str) -> str:
        read_by(kind)(text)
        return text.strip()

    return check
