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
"""Seconds from the first failure in which an Alertmanager that answered before is tried again. It covers a restart.
Holding batches back for longer, or each of them anew, would throttle the healthy Alertmanagers beside it, because
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
        fresh: aiohttp.ClientSession,
        alertmanager: URL,
        timeout: float,
        on_retry: Callable[[str], None],
    ) -> None:
        """`session` keeps its connections alive; `fresh` opens one for each request, for what failed on another."""
        self._session = session
        self._fresh = fresh
        self._origin = str(alertmanager.origin())
        self._timeout = timeout
        self._on_retry = on_retry
        self._answered = False
        self._failing_since: float | None = None

    async def post_alerts(self, request: web.BaseRequest, body: bytes, deadline: float) -> Answer:
        """Deliver `body` in the place of the request's own, and return Alertmanager's answer.

        `deadline` is on the loop's clock. Raises UpstreamError when Alertmanager cannot be reached and UpstreamTimeout
        when it has not answered by then; a POST that was not answered may have been applied all the same.
        """
        try:
            async with asyncio.timeout_at(deadline):
                return await self._persist(target(request), to_send(request), body)
        except TimeoutError:
            raise UpstreamTimeout(f"Alertmanager has not answered within {self._timeout:g} s") from None

    async def send(self, path: str, headers: CIMultiDict[str], body: bytes, deadline: float) -> int:
        """Deliver alerts of our own account, once, and return the status; `path` and `headers` are an earlier POST's.

        `deadline` is on the loop's clock. Raises UpstreamError or UpstreamTimeout, as `post_alerts` does.
        """
        try:
            async with asyncio.timeout_at(deadline):
                return (await self._attempt(self._session, path, headers, body)).status
        except TimeoutError:
            raise UpstreamTimeout("Alertmanager has not answered in time") from None
        except aiohttp.ClientError as exc:
            raise UpstreamError(f"Alertmanager at {self._origin}: {cause(exc)}") from exc

    def deadline(self) -> float:
        """Return when a request whose last byte arrived just now must have been answered, on the loop's clock."""
        return asyncio.get_running_loop().time() + self._timeout

    async def stream(self, request: web.BaseRequest, prefix: bytes = b"") -> web.StreamResponse:
        """Pass a request on and its answer back as they come; `prefix` is what has been read of the body already.

        Raises UpstreamError or UpstreamTimeout when there is no answer at all. When it breaks off in the middle the
        connection is cut, since nothing else can tell the client that a part is missing.
        """
        response: Relayed | None = None
        try:
            async with self._session.request(
                request.method,
                URL(self._origin + target(request), encoded=True),
                headers=to_send(request),
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
            raise UpstreamError(f"Alertmanager at {self._origin}: {cause(exc)}") from exc

    async def _persist(self, path: str, headers: CIMultiDict[str], body: bytes) -> Answer:
        loop = asyncio.get_running_loop()
        session, forgiven = self._session, False
        while True:
            try:
                answer = await self._attempt(session, path, headers, body)
            except aiohttp.ClientError as exc:
                session = self._fresh
                dropped = not isinstance(exc, aiohttp.ClientConnectorError)
                if dropped and not forgiven:
                    # A kept-alive connection may die between two POSTs. The POST is idempotent: once more, at once.
                    forgiven = True
                    self._on_retry("disconnected")
                    continue
                if self._failing_since is None:
                    self._failing_since = loop.time()
                pause = random.uniform(*RETRY_EVERY)  # noqa: S311 # spreads attempts, guards nothing
                if not self._answered or loop.time() + pause > self._failing_since + RETRY_FOR:
                    raise UpstreamError(f"Alertmanager at {self._origin}: {cause(exc)}") from exc
                self._on_retry("disconnected" if dropped else "refused")
                await asyncio.sleep(pause)
            else:
                self._answered, self._failing_since = True, None
                return answer

    async def _attempt(
        self, session: aiohttp.ClientSession, path: str, headers: CIMultiDict[str], body: bytes
    ) -> Answer:
        sized = headers.copy()
        sized["Content-Length"] = str(len(body))
        async with session.post(
            URL(self._origin + path, encoded=True),
            headers=sized,
            data=io.BytesIO(body) if len(body) > CHUNK else body,  # in pieces, so that nobody else has to wait for it
            timeout=aiohttp.ClientTimeout(total=None),
            allow_redirects=False,
        ) as answer:
            text = await answer.content.read(ANSWER_LIMIT)
            while not answer.content.at_eof():
                if len(text) >= ANSWER_LIMIT:
                    raise UpstreamError(f"Alertmanager at {self._origin}: an answer of more than {ANSWER_LIMIT} bytes")
                text += await answer.content.read(ANSWER_LIMIT - len(text))
            return Answer(answer.status, answer.reason or "", end_to_end(answer.headers), text)


def target(request: web.BaseRequest) -> str:
    """Return path and query as they were sent. Of the absolute form, whose address is ours, only those."""
    if request.raw_path.startswith("/"):
        return request.raw_path
    rest = request.raw_path.partition("://")[2]
    begin = min((at for at in (rest.find("/"), rest.find("?")) if at >= 0), default=len(rest))
    return "/" + rest[begin:].removeprefix("/")


def to_send(request: web.BaseRequest) -> CIMultiDict[str]:
    """Return the headers to send on. `Expect` is not: it was answered by us."""
    headers = end_to_end(request.headers)
    headers.popall("Expect", None)
    return headers


async def _body(request: web.BaseRequest, prefix: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(prefix), CHUNK):
        yield prefix[at : at + CHUNK]
    async for chunk in request.content.iter_chunked(CHUNK):
        yield chunk


def cause(exc: Exception) -> str:
    """Return what happened, for an operator; aiohttp's own text speaks of TLS where there is none."""
    if isinstance(exc, aiohttp.ClientConnectorError):
        return f"cannot connect: {exc.os_error.strerror or exc.os_error}"
    return str(exc) or type(exc).__name__
