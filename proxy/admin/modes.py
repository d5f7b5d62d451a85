"""Asking for the mode, and switching it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final, Protocol

from aiohttp import web

from proxy.admin.answers import error, read_object
from proxy.decisions.canary import Canary
from proxy.decisions.state import Choice, canary_read, canary_shown
from proxy.durations import parse_duration
from proxy.errors import StoreError, SwitchRefused
from proxy.policy import Mode

LONGEST: Final = timedelta(days=365)
"""For a mode that is to stay there are the settings; and no date lies beyond the calendar's end."""
NAME_LENGTH: Final = 100
_KNOWN: Final = ", ".join(Mode)


class ModeSwitch(Protocol):
    """Changes the mode. Raises StoreError when that cannot be kept, and SwitchRefused with the reason."""

    @property
    def source(self) -> str: ...

    @property
    def choice(self) -> Choice | None: ...

    async def to(
        self,
        mode: Mode | None,
        *,
        by: str = "",
        origin: str = "",
        lasting: timedelta | None = None,
        canary: Canary | None = None,
        force: bool = False,
    ) -> None: ...


class CurrentMode(Protocol):
    """The mode that holds, and who takes part in it."""

    @property
    def mode(self) -> Mode: ...

    @property
    def canary(self) -> Canary: ...


class Modes:
    """The handlers."""

    def __init__(self, current: CurrentMode, switch: ModeSwitch, configured: Callable[[], Canary]) -> None:
        """What a switch leaves out of its canary is as `configured` gives it."""
        self._current = current
        self._switch = switch
        self._configured = configured

    async def get(self, _: web.Request) -> web.Response:
        """Answer with the mode that holds, and where it comes from."""
        choice = self._switch.choice
        return web.json_response(
            {
                "mode": self._current.mode.value,
                "source": self._switch.source,
                "switched": choice.shown() if choice else None,
                "canary": canary_shown(self._current.canary),
            }
        )

    async def switch(self, request: web.Request) -> web.Response:
        """Switch to another mode, for a time or until the next switch."""
        want = f'want a JSON object such as {{"mode": "enriched"}}; modes are {_KNOWN}'
        try:
            given = read_object(await request.read(), ("mode", "for", "canary", "by", "force"), want)
            if "mode" not in given:
                raise ValueError(want)
            mode, by, lasting, canary = _mode(given), _by(given), _lasting(given), self._canary(given)
            force = _force(given)
        except ValueError as exc:
            return error(400, str(exc))
        return await self._to(request, mode, by, lasting, canary, force=force)

    async def reset(self, request: web.Request) -> web.Response:
        """Go back to what is configured. The body may be empty, or say who asks."""
        body = await request.read()
        try:
            given = read_object(body, ("by",), 'want no body, or {"by": "your name"}') if body.strip() else {}
            by = _by(given)
        except ValueError as exc:
            return error(400, str(exc))
        return await self._to(request, None, by)

    async def _to(
        self,
        request: web.Request,
        mode: Mode | None,
        by: str,
        lasting: timedelta | None = None,
        canary: Canary | None = None,
        *,
        force: bool = False,
    ) -> web.Response:
        origin = request.remote or "unknown"
        try:
            await self._switch.to(mode, by=by, origin=origin, lasting=lasting, canary=canary, force=force)
        except SwitchRefused as exc:
            return error(409, str(exc))
        except StoreError as exc:
            return error(503, f"the mode was not changed, because it could not be kept: {exc}")
        return await self.get(request)

    def _canary(self, given: Mapping[str, Any]) -> Canary | None:
        canary = given.get("canary")
        if canary is None:
            return None
        if not isinstance(canary, dict):
            raise ValueError('canary wants an object such as {"percent": 10, "by": "alertname", "matchers": []}')
        return canary_read(canary, self._configured())


def _mode(given: Mapping[str, Any]) -> Mode:
    try:
        return Mode(given["mode"])
    except ValueError:
        raise ValueError(f"unknown mode {given['mode']!r}; modes are {_KNOWN}") from None


def _lasting(given: Mapping[str, Any]) -> timedelta | None:
    text = given.get("for")
    if text is None:
        return None
    if not isinstance(text, str):
        raise ValueError(f'for is {text!r}, want text such as "2h"')
    try:
        lasting = parse_duration(text.strip())
    except ValueError as exc:
        raise ValueError(f"for: {exc}") from None
    if lasting > LONGEST:
        raise ValueError(f"for is {text!r}, want 365d at most; without it the mode holds until the next switch")
    return lasting


def _force(given: Mapping[str, Any]) -> bool:
    force = given.get("force", False)
    if not isinstance(force, bool):
        raise ValueError(f"force is {force!r}, want true or false")
    return force


def _by(given: Mapping[str, Any]) -> str:
    by = given.get("by")
    if by is None:
        return ""
    # It is shown in logs and on terminals: no line feeds, and nothing that moves a cursor.
    if not isinstance(by, str) or len(by) > NAME_LENGTH or not by.isprintable():
        raise ValueError(f"by wants your name, in at most {NAME_LENGTH} printable characters")
    return by.strip()
