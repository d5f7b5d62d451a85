"""The way to Alertmanager and back."""

from __future__ import annotations

import asyncio
import io
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from proxy.errors import UpstreamError, UpstreamTimeout
from proxy.gateway.headers import end_to_end

RETRY_FOR: Final = 4.0
"""Seconds, both for how long an Alertmanager that went away is tried again, and for how recently it must have answered.
It covers a restart; holding batches back for longer would throttle the healthy Alertmanagers beside it, because
Prometheus before 3.10 waits for all of them."""
RETRY_EVERY: Final = (0.05, 0.5)
"""Seconds between attempts, drawn at random."""
ANSWER_LIMIT: Final = 16 << 20
"""Bytes of an answer to a POST of alerts; Alertmanager's are empty or one error."""
IDLE_ANSWER: Final = 60.0
"""Seconds without a byte from Alertmanager before a request that is not a POST of alerts is given up."""
CHUNK: Final = 64 << 10


@dataclass(frozen=True, slots=True)
class Answer:
    """Alertmanager's answer to a POST of alerts."""

    status: int
    reason: str
    headers: CIMultiDict[str]
    body: bytes


class Relayed(web.StreamResponse):
    """An answer with exactly the headers it was given; aiohttp would add its own Server, Date and Content-Type."""

    async def _prepare_headers(self) -> None:  # no public hook outlives web.Application, and a router rewrites paths
        given = set(self.headers)
        await super()._prepare_headers()
        for name in ("Server", "Date", "Content-Type"):
            if name not in given:
                self.headers.popall(name, None)


def relayed(answer: Answer) -> web.StreamResponse:
    """Return the response that gives `answer` to the sender; `write_eof(answer.body)` ends it."""
    headers = answer.headers.copy()
    headers["Content-Length"] = str(len(answer.body))
    return Relayed(status=answer.status, reason=answer.reason, headers=headers)


class Forwarder:
    """Sends requests to one Alertmanager.

    Paths and queries go as they came, byte for byte. Redirects are relayed, never followed. Neither side's bodies are
    decompressed.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        alertmanager: URL,
        timeout: float,
        on_retry: Callable[[str], None],
    ) -> None:
        self._session = session
        self._origin = str(alertmanager.origin())
        self._timeout = timeout
        self._on_retry = on_retry
        self._answered_at: float | None = None

    async def post_alerts(self, request: web.BaseRequest, body: bytes, deadline: float) -> Answer:
        """Deliver `body` in the place of the request's own, and return Alertmanager's answer.

        `deadline` is on the loop's clock. Raises UpstreamError when Alertmanager cannot be reached and UpstreamTimeout
        when it has not answered by then; a POST that was not answered may have been applied all the same.
        """
        try:
            async with asyncio.timeout_at(deadline):
                return await self._persist(request, body)
        except TimeoutError:
            raise UpstreamTimeout(f"Alertmanager has not answered within {self._timeout:g} s") from None

    def deadline(self) -> float:
        """Return when a request whose last byte arrived just now must have been answered, on the loop's clock."""
        return asyncio.get_running_loop().time() + self._timeout

    async def stream(self, request: web.BaseRequest, prefix: bytes = b"") -> web.StreamResponse:
        """Pass a request on and its answer back as they come; `prefix` is what has been read of the body already.

        Raises UpstreamError or UpstreamTimeout when there is no answer at all. When it breaks off in the middle the
        connection is cut, since nothing else can tell the client that a part is missing.
        """
        headers = end_to_end(request.headers)
        headers.popall("Expect", None)
        response: Relayed | None = None
        try:
            async with self._session.request(
                request.method,
                self._target(request),
                headers=headers,
                data=_body(request, prefix) if request.body_exists else None,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._timeout, sock_read=IDLE_ANSWER),
                allow_redirects=False,
            ) as answer:
                response = Relayed(status=answer.status, reason=answer.reason, headers=end_to_end(answer.headers))
                await response.prepare(request)
                async for chunk in answer.content.iter_chunked(CHUNK):
                    await response.write(chunk)
                await response.write_eof()
                return response
        except (aiohttp.ClientError, TimeoutError) as exc:
            if response is not None:
                if request.transport is not None:
                    request.transport.abort()
                return response
            if isinstance(exc, TimeoutError):
                raise UpstreamTimeout(f"Alertmanager at {self._origin} does not answer") from None
            raise UpstreamError(f"Alertmanager at {self._origin}: {_cause(exc)}") from exc

    async def _persist(self, request: web.BaseRequest, body: bytes) -> Answer:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        patience = begun + RETRY_FOR if self._recently_answered(begun) else begun
        dead_connection_forgiven = False
        while True:
            try:
                answer = await self._attempt(request, body)
            except aiohttp.ClientError as exc:
                dropped = not isinstance(exc, aiohttp.ClientConnectorError)
                if dropped and not dead_connection_forgiven:
                    # A kept-alive connection may die between two POSTs. The POST is idempotent, so a fresh one gets it.
                    dead_connection_forgiven = True
                    self._on_retry("disconnected")
                    continue
                pause = random.uniform(*RETRY_EVERY)  # noqa: S311 # spreads attempts, guards nothing
                if loop.time() + pause > patience:
                    raise UpstreamError(f"Alertmanager at {self._origin}: {_cause(exc)}") from exc
                self._on_retry("disconnected" if dropped else "refused")
                await asyncio.sleep(pause)
            else:
                self._answered_at = loop.time()
                return answer

    async def _attempt(self, request: web.BaseRequest, body: bytes) -> Answer:
        headers = end_to_end(request.headers)
        headers.popall("Expect", None)
        headers["Content-Length"] = str(len(body))
        async with self._session.post(
            self._target(request),
            headers=headers,
            data=io.BytesIO(body) if len(body) > CHUNK else body,  # in pieces, so that nobody else has to wait for it
            timeout=aiohttp.ClientTimeout(total=None),
            allow_redirects=False,
        ) as answer:
            text = await answer.content.read(ANSWER_LIMIT)
            while not answer.content.at_eof():
                if len(text) >= ANSWER_LIMIT:
                    raise aiohttp.ClientPayloadError("the answer is too long")
                text += await answer.content.read(ANSWER_LIMIT - len(text))
            return Answer(answer.status, answer.reason or "", end_to_end(answer.headers), text)

    def _recently_answered(self, now: float) -> bool:
        return self._answered_at is not None and now - self._answered_at < RETRY_FOR

    def _target(self, request: web.BaseRequest) -> URL:
        path = request.raw_path
        if not path.startswith("/"):
            # Absolute form (`GET http://proxy:19093/path`): the address in it is ours, not Alertmanager's.
            path = "/" + path.partition("://")[2].partition("/")[2]
        return URL(self._origin + path, encoded=True)


async def _body(request: web.BaseRequest, prefix: bytes) -> AsyncIterator[bytes]:
    if prefix:
        yield prefix
    async for chunk in request.content.iter_chunked(CHUNK):
        yield chunk


def _cause(exc: Exception) -> str:
    return str(exc) or type(exc).__name__
