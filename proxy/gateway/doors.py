"""The door of a listener: what clients have to show before their requests are looked at."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from aiohttp import web

from proxy.gateway.connections import Handler
from proxy.gateway.forwarder import expects_continue
from proxy.gateway.heads import ADDED
from proxy.gateway.refusals import Refusal, refused
from proxy.gateway.users import Users, bears
from proxy.gateway.web_config import WebConfig


class Shown(StrEnum):
    """What a client has shown."""

    PASSWORD = "password"  # noqa: S105 # the name of one
    CERTIFICATE = "certificate"


SHOWN: web.RequestKey[Shown] = web.RequestKey("SHOWN", Shown)
"""What the client of a request has shown; there is none on requests of the unknown."""


@dataclass(frozen=True, slots=True)
class DoorState:
    """A file of a listener's, as it was read last."""

    config: WebConfig
    context: ssl.SSLContext | None
    """What TLS is spoken with; None: plain HTTP."""


class Door:
    """Lets requests in, or refuses them with 401."""

    def __init__(self, current: Callable[[], DoorState], token: Callable[[], str] = lambda: "") -> None:
        """`current` returns what holds now; `token` a bearer token that opens the door in a user's place, if any."""
        self._current = current
        self._token = token
        self._users = Users()

    @property
    def speaks_tls(self) -> bool:
        """Whether clients must. It does not change."""
        return self._current().context is not None

    @property
    def state(self) -> DoorState:
        """What holds for a connection that begins now."""
        return self._current()

    def before(self, handler: Handler) -> Handler:
        """Return a handler that asks first."""

        async def answer(request: Any) -> web.StreamResponse:
            config = self._current().config
            request[ADDED] = config.headers
            if config.tls is not None and config.tls.clients is ssl.CERT_REQUIRED:
                if not _shows_a_certificate(request):  # the connection is older than what the file says
                    return refused(401, "want a certificate: connect anew")
                request[SHOWN] = Shown.CERTIFICATE
            return await handler(request) if await self._opens_for(request, config) else _who(request)

        return answer

    async def _opens_for(self, request: web.BaseRequest, config: WebConfig) -> bool:
        if not config.users or bears(request, self._token()):
            return True
        if known := await self._users.know(request, config.users):
            request[SHOWN] = Shown.PASSWORD
        return known


def _shows_a_certificate(request: web.BaseRequest) -> bool:
    return request.transport is not None and bool(request.transport.get_extra_info("peercert"))


def _who(request: web.BaseRequest) -> web.StreamResponse:
    why = "want a user's name and password"
    # Who waits for a 100 may take this for the end of the request, and begin the next one where the body would be.
    refusal = refused(401, why) if expects_continue(request) else Refusal(401, why)
    refusal.headers["WWW-Authenticate"] = "Basic"
    return refusal
