"""Settings as the sources of a test give them."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy import config
from proxy.errors import ConfigError

CASES = Path(__file__).parent / "testdata" / "config"
REPOSITORY = Path(__file__).parent.parent
KEY = "hunter2"
"""The secret of all cases; it must never show."""


def load(text: str | None = None, *, flags=(), **environ: str) -> config.Loaded:
    """Load `text` as config.yaml; flags as pairs of key and value."""
    file = None
    if text is not None:
        file = Path("config.yaml")
        file.write_text(text, encoding="utf-8")
    given: dict[str, list[str]] = {}
    for key, value in flags:
        given.setdefault(key, []).append(value)
    return config.load(file, environ=environ, flags=given)


def problems(text: str | None = None, *, flags=(), **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(text, flags=flags, **environ)
    return list(caught.value.problems)
