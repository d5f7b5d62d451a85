"""Whether LiteLLM has a provider of a name, told without importing it, which takes seconds."""

from __future__ import annotations

import importlib.util
from pathlib import Path


def may_be_known(provider: str) -> bool:
    """Return whether LiteLLM may have a provider of that name: False only when its list was found, and lacks it."""
    found = importlib.util.find_spec("litellm")  # without importing it
    if found is None or found.origin is None:
        return True
    try:
        listing = Path(found.origin).with_name("types").joinpath("utils.py").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return True
    return "class LlmProviders" not in listing or f'= "{provider}"' in listing
