"""The data listener's handler: Alertmanager's whole surface, and one request that is looked at."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final, Protocol

import structlog
from aiohttp import web

from proxy.errors import UpstreamError
from proxy.gateway.forwarder import Forwarder, relayed
from proxy.gateway.pipeline import Prepared

log = structlog.get_logger(__name__)

BODY_LIMIT: Final = 64 << 20
"""Bytes of a POST of alerts that are read to be enriched; a longer one is streamed through as it comes."""
_ALERTS: Final = "/api/v2/alerts"


class BodyPipeline(Protocol):
    """What turns the body that came into the body that goes."""

    async def run(self, body: bytes) -> Prepared: ...


class DataListener:
    """Answers every request with Alertmanager's answer.

    `prepare_within` bounds, in seconds, what the pipeline may take: a bare alert is worth more than a late one.
    """

    def __init__(
        self,
        forwarder: Forwarder,
        pipeline: BodyPipeline,
        *,
        prepare_within: float,
        on_post: Callable[[int], None],
        on_fault: Callable[[str], None],
        body_limit: int = BODY_LIMIT,
    ) -> None:
        self._forwarder = forwarder
        self._pipeline = pipeline
        self._prepare_within = prepare_within
        self._on_post = on_post
        self._on_fault = on_fault
        self._body_limit = body_limit

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request; 502 or 504 when Alertmanager does not."""
        if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
            # Asked of us, as we read the body before anybody else; aiohttp answers it in web.Application only.
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        posts_alerts = request.method == "POST" and _path(request).rstrip("/").endswith(_ALERTS)
        try:
            response = await (self._post_alerts(request) if posts_alerts else self._forwarder.stream(request))
        except UpstreamError as exc:
            log.warning("no answer from Alertmanager", method=request.method, path=_path(request), error=str(exc))
            response = web.Response(status=exc.status, text=f"alertmanager-ai-proxy: {exc}\n")
        if posts_alerts:
            self._on_post(response.status)
        return response

    async def _post_alerts(self, request: web.BaseRequest) -> web.StreamResponse:
        body, whole = await self._read(request)
        if not whole:
            return await self._forwarder.stream(request, prefix=body)
        deadline = self._forwarder.deadline()
        prepared = await self._prepare(request, body)
        answer = await self._forwarder.post_alerts(request, prepared.body, deadline)
        if 400 <= answer.status < 500 and prepared.without_annotations is not None:
            # Should our text be what it refuses, the alert is worth more. The labels stay: they are its identity.
            with contextlib.suppress(UpstreamError):  # no second answer: the first one stands
                answer = await self._forwarder.post_alerts(request, prepared.without_annotations(), deadline)
        response = relayed(answer)
        with contextlib.suppress(ConnectionError):  # the sender has hung up, and Alertmanager has the alerts
            await response.prepare(request)
            await response.write_eof(answer.body)
        return response

    async def _prepare(self, request: web.BaseRequest, body: bytes) -> Prepared:
        # Anything but plain JSON is refused by Alertmanager (415, 400): nothing in it is an alert.
        if request.content_type != "application/json" or "Content-Encoding" in request.headers:
            return Prepared(body)
        try:
            async with asyncio.timeout(self._prepare_within):
                return await self._pipeline.run(body)
        except TimeoutError:
            self._on_fault("late")
            log.error("a batch goes as it came: it could not be enriched in time", bytes=len(body))
        except Exception:
            self._on_fault("batch")
            log.exception("a bug: a batch goes as it came")
        return Prepared(body)

    async def _read(self, request: web.BaseRequest) -> tuple[bytes, bool]:
        """Return the body, and whether that is all of it."""
        chunks, size = [], 0
        async for chunk in request.content.iter_any():
            chunks.append(chunk)
            size += len(chunk)
            if size > self._body_limit:
                return b"".join(chunks), False
        return b"".join(chunks), True


def _path(request: web.BaseRequest) -> str:
    return request.raw_path.partition("?")[0]
