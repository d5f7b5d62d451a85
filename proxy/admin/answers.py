"""What all handlers share: reading an object, and answering with a mistake."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from aiohttp import web


def error(status: int, text: str) -> web.Response:
    """Return an answer that says what is wrong."""
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    return web.json_response({"error": text}, status=status, headers=headers)


def read_object(body: bytes, members: Collection[str], want: str) -> dict[str, Any]:
    """Return the JSON object in `body`. Raises ValueError, with what we `want`, for anything else."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ValueError(want)
    refuse_unknown(found, members, "member")
    return found


def refuse_unknown(given: Collection[str], known: Collection[str], what: str) -> None:
    """Raise ValueError when something is `given` that is not `known`: it would be taken for done, and was not."""
    if unknown := sorted(set(given) - set(known)):
        raise ValueError(f"unknown {what} {unknown[0]!r}; there are {', '.join(known) or 'none'}")
