"""The way to Alertmanager and back."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Final

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from proxy.errors import RequestError, UpstreamError, UpstreamTimeout
from proxy.gateway.access import OPEN, Access
from proxy.gateway.bodies import pieces
from proxy.gateway.headers import end_to_end
from proxy.gateway.heads import CHUNK, Outgoing, Relayed, relayable

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
_ASKED_ANEW: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""Methods of requests without a body that aiohttp sends once more when a kept-alive connection turns out to be dead."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Alertmanager's answer to a POST of alerts."""

    status: int
    reason: str
    headers: CIMultiDict[str]
    body: bytes


def relayed(answer: Answer) -> web.StreamResponse:
    """Return the response that gives `answer` to the sender; `write_eof(answer.body)` ends it."""
    return Relayed(status=answer.status, reason=answer.reason, headers=_sized(answer.headers, len(answer.body)))


class Forwarder:
    """Sends requests to one Alertmanager.

    Paths and queries go as they came, byte for byte. Redirects are relayed, never followed. Neither side's bodies are
    decompressed.
    """

    streams_alerts = True

    def __init__(
        self,
        session: aiohttp.ClientSession,
        fresh: aiohttp.ClientSession,
        alertmanager: URL,
        timeout: float,
        on_retry: Callable[[str], None],
        on_sent: Callable[[bool, float], None] = lambda worked, seconds: None,
        access: Access = OPEN,
    ) -> None:
        """`session` keeps its connections alive; `fresh` opens one for each request, for what failed on another or
        cannot be sent twice.
        `on_sent` hears of each POST of alerts whether it was taken, and how many seconds that took."""
        self._session = session
        self._fresh = fresh
        self._origin = str(alertmanager.origin())
        self._host = alertmanager.host_port_subcomponent or ""
        self._timeout = timeout
        self._on_retry = on_retry
        self._on_sent = on_sent
        self._access = access
        self._answered = False
        self._failing_since: float | None = None

    async def post_alerts(
        self,
        request: web.BaseRequest,
        body: bytes,
        deadline: float,
        without_annotations: Callable[[], bytes] | None = None,
        answered: Callable[[int, float], None] = lambda status, seconds: None,
    ) -> Answer:
        """Deliver `body` in the place of the request's own, and return Alertmanager's answer.

        After a 4xx what `without_annotations` returns is delivered. `answered` hears the status for the whole of
        `body`, and the seconds it took.

        `deadline` is on the loop's clock. Raises UpstreamError when Alertmanager cannot be reached and UpstreamTimeout
        when it has not answered by then; a POST that was not answered may have been applied all the same.
        """
        clock, status = asyncio.get_running_loop().time, 0
        begun = clock()
        try:
            answer = await self._post(request, body, deadline)
            answered(answer.status, clock() - begun)
            if 400 <= answer.status < 500 and without_annotations is not None:
                # Should our text be what it refuses, the alert is worth more. The labels stay: they are its identity.
                with contextlib.suppress(UpstreamError):  # no second answer: the first one stands
                    answer = await self._post(request, without_annotations(), deadline)
            status = answer.status
            return answer
        finally:
            self._on_sent(200 <= status < 300, clock() - begun)

    async def _post(self, request: web.BaseRequest, body: bytes, deadline: float) -> Answer:
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
        headers, path = to_send(request), target(request)
        framed = to_send(request, chunked=True) if "Transfer-Encoding" in request.headers else headers
        self._access.authorize(framed)
        body = _Body(request, prefix) if request.body_exists else b""
        # A kept-alive connection may be dead. aiohttp then asks anew by itself what has no body and may be asked twice;
        # all else has one try, which a connection of its own gets.
        session = self._session if body == b"" and request.method in _ASKED_ANEW else self._fresh
        try:
            async with session.request(
                request.method,
                URL(self._origin + path if path.startswith("/") else self._origin, encoded=True),
                headers=headers,
                data=Outgoing(request.method, path, self._host, framed, body),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._timeout, sock_read=IDLE_ANSWER),
                allow_redirects=False,
                ssl=self._access.context,
                server_hostname=self._access.server_name,
            ) as answer:
                self._answered, self._failing_since = True, None
                response = Relayed(status=answer.status, reason=answer.reason, headers=relayable(answer))
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
            if isinstance(body, _Body) and body.broken is not None:
                raise body.broken from exc
            if isinstance(exc, TimeoutError):
                raise UpstreamTimeout(f"Alertmanager at {self._origin} does not answer") from None
            if isinstance(exc, aiohttp.ClientConnectorError):
                self._fails()
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
                if isinstance(exc, aiohttp.ClientSSLError):  # no restart mends a certificate
                    raise UpstreamError(f"Alertmanager at {self._origin}: {cause(exc)}") from exc
                if dropped and not forgiven:
                    # A kept-alive connection may die between two POSTs. The POST is idempotent: once more, at once.
                    forgiven = True
                    self._on_retry("disconnected")
                    continue
                failing_since = self._fails()
                pause = random.uniform(*RETRY_EVERY)  # noqa: S311 # spreads attempts, guards nothing
                if not self._answered or loop.time() + pause > failing_since + RETRY_FOR:
                    raise UpstreamError(f"Alertmanager at {self._origin}: {cause(exc)}") from exc
                self._on_retry("disconnected" if dropped else "refused")
                await asyncio.sleep(pause)
            else:
                self._answered, self._failing_since = True, None
                return answer

    def _fails(self) -> float:
        """Return since when Alertmanager cannot be reached, if not since now."""
        if self._failing_since is None:
            self._failing_since = asyncio.get_running_loop().time()
        return self._failing_since

    async def _attempt(
        self, session: aiohttp.ClientSession, path: str, headers: CIMultiDict[str], body: bytes
    ) -> Answer:
        # A POST without a body needs no length, and may have come without.
        sized = _sized(headers, len(body)) if body or "Content-Length" in headers else headers.copy()
        self._access.authorize(sized)
        async with session.post(
            URL(self._origin + path, encoded=True),
            headers=sized,
            data=Outgoing("POST", path, self._host, sized, body),
            timeout=aiohttp.ClientTimeout(total=None),
            allow_redirects=False,
            ssl=self._access.context,
            server_hostname=self._access.server_name,
        ) as answer:
            text = await answer.content.read(ANSWER_LIMIT)
            while not answer.content.at_eof():
                if len(text) >= ANSWER_LIMIT:
                    raise UpstreamError(f"Alertmanager at {self._origin}: an answer of more than {ANSWER_LIMIT} bytes")
                text += await answer.content.read(ANSWER_LIMIT - len(text))
            return Answer(answer.status, answer.reason or "", relayable(answer), text)


def target(request: web.BaseRequest) -> str:
    """Return path and query as they were sent. Of the absolute form, whose address is ours, only those."""
    if request.raw_path.startswith("/") or request.raw_path == "*":
        return request.raw_path
    rest = request.raw_path.partition("://")[2]
    begin = min((at for at in (rest.find("/"), rest.find("?")) if at >= 0), default=len(rest))
    return "/" + rest[begin:].removeprefix("/")


def to_send(request: web.BaseRequest, *, chunked: bool = False) -> CIMultiDict[str]:
    """Return the headers to send on, for a body that has a length, or stays `chunked`.

    `Expect: 100-continue` is not among them: it was answered by us.
    """
    headers = end_to_end(request.raw_headers, chunked=chunked)
    if _names_continue(headers):
        headers.popall("Expect")
    return headers


def expects_continue(request: web.BaseRequest) -> bool:
    """Return whether the sender may wait for a 100 before it sends its body."""
    return request.version == aiohttp.HttpVersion11 and _names_continue(request.headers)


def _names_continue(headers: Mapping[str, str]) -> bool:
    """Return whether 100-continue is among what is expected, as Go's server reads it."""
    return "100-continue" in headers.get("Expect", "").lower().replace(",", " ").split()


class _Body:
    """A body on its way, `prefix` first, which remembers that it broke off: aiohttp reports that as its own error."""

    def __init__(self, request: web.BaseRequest, prefix: bytes) -> None:
        self._request = request
        self._prefix = prefix
        self.broken: RequestError | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for at in range(0, len(self._prefix), CHUNK):
            yield self._prefix[at : at + CHUNK]
        try:
            async for piece in pieces(self._request):
                yield piece
        except RequestError as exc:
            self.broken = exc
            raise


def _sized(headers: CIMultiDict[str], length: int) -> CIMultiDict[str]:
    """Return the headers with that Content-Length, which stays as it is written where it says so already."""
    sized = headers.copy()
    if sized.get("Content-Length") != str(length):
        sized["Content-Length"] = str(length)
    return sized


def cause(exc: Exception) -> str:
    """Return what happened, for an operator; aiohttp's own text speaks of TLS where there is none."""
    if isinstance(exc, aiohttp.ClientConnectorCertificateError):
        why = getattr(exc.certificate_error, "verify_message", "") or type(exc.certificate_error).__name__
        return (
            f"its certificate is not accepted ({why}): see alertmanager.tls_config.ca_file, and server_name where the "
            "certificate has another name than alertmanager.url"
        )
    if isinstance(exc, aiohttp.ClientSSLError):
        why = str(getattr(exc.os_error, "reason", "") or type(exc.os_error).__name__).replace("_", " ").lower()
        return f"TLS fails ({why}): is it https:// that is spoken there, and does it want a cert_file of ours?"
    if isinstance(exc, aiohttp.ClientConnectorError):
        return f"cannot connect: {exc.os_error.strerror or exc.os_error}"
    return str(exc) or type(exc).__name__
