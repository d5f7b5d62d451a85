from __future__ import annotations


def __getattr__(name: str) -> type[Exception]:
    """Make a class of any name, once."""
    made = globals()[name] = type(name, (Exception,), {})
    return made
