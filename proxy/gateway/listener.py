"""The data listener's handler: Alertmanager's whole surface, and one request that is looked at."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

import structlog
from aiohttp import web

from proxy.errors import RequestError, UpstreamError, UpstreamTimeout
from proxy.gateway import bodies
from proxy.gateway.bodies import BodyMemory, Held
from proxy.gateway.connections import BodyTimeout
from proxy.gateway.forwarder import Answer, expects_continue, relayed, target
from proxy.gateway.pipeline import Prepared
from proxy.gateway.refusals import Refusal, refused, unacceptable
from proxy.gateway.repost import Answered, Reposter

log = structlog.get_logger(__name__)

_ALERTS: Final = "/api/v2/alerts"


class BodyPipeline(Protocol):
    """What turns the body that came into the body that goes."""

    @property
    def idle(self) -> bool:
        """Whether bodies go as they came, unread."""
        ...

    async def run(self, body: bytes) -> Prepared: ...

    def known_only(self, body: bytes) -> Prepared: ...


class Upstream(Protocol):
    """Alertmanager, or several. Raises UpstreamError."""

    @property
    def streams_alerts(self) -> bool:
        """Whether a POST of alerts that is too long to be read can be streamed through as it comes."""
        ...

    def deadline(self) -> float: ...

    async def post_alerts(
        self,
        request: web.BaseRequest,
        body: bytes,
        deadline: float,
        without_annotations: Callable[[], bytes] | None = None,
        answered: Callable[[int, float], None] = ...,
    ) -> Answer: ...

    async def stream(self, request: web.BaseRequest, prefix: bytes = b"") -> web.StreamResponse: ...


class DataListener:
    """Answers every request with Alertmanager's answer.

    `prepare_within` bounds, in seconds, what the pipeline may take: a bare alert is worth more than a late one.
    `body_limit` is the length, in bytes, up to which a body is read; a longer one is streamed through as it comes, and
    so is one that finds no room in `memory`. `on_unread` hears why: `too_long` or `no_memory`.
    `on_added` hears by how many seconds a POST that was read to its end is forwarded later than without a proxy.
    """

    def __init__(
        self,
        forwarder: Upstream,
        pipeline: BodyPipeline,
        *,
        prepare_within: float,
        body_limit: int,
        memory: BodyMemory,
        on_unread: Callable[[str], None],
        on_post: Callable[[int], None],
        on_fault: Callable[[str], None],
        on_added: Callable[[float], None] = lambda _: None,
        reposter: Reposter | None = None,
    ) -> None:
        self._forwarder = forwarder
        self._pipeline = pipeline
        self._prepare_within = prepare_within
        self._on_post = on_post
        self._on_fault = on_fault
        self._on_added = on_added
        self._reposter = reposter
        self._body_limit = body_limit
        self._memory = memory
        self._on_unread = on_unread
        self._turn = asyncio.Lock()
        self._in_flight = 0
        self._none_in_flight = asyncio.Event()
        self._none_in_flight.set()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request; 502 or 504 when Alertmanager does not."""
        if (refusal := unacceptable(request)) is not None:
            return refusal
        if expects_continue(request) and request.transport is not None:
            # Asked of us, as we read the body before anybody else; aiohttp answers it in web.Application only.
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        path = target(request).partition("?")[0]
        try:
            if request.method == "POST" and path.rstrip("/").endswith(_ALERTS):
                with self._memory.held() as held:
                    return await self._count(self._post_alerts(request, held))
            return await self._forwarder.stream(request)
        except UpstreamError as exc:
            if isinstance(late := request.content.exception(), BodyTimeout):
                return refused(408, str(late))  # it was not Alertmanager that did not go on
            log.warning("no answer from Alertmanager", method=request.method, path=path, error=str(exc))
            return Refusal(exc.status, str(exc))
        except BodyTimeout as exc:
            return refused(408, str(exc))
        except RequestError as exc:
            log.info("a request breaks off", method=request.method, path=path, error=str(exc))
            return refused(exc.status, str(exc))

    async def drained(self, at_most: float) -> None:
        """Wait until the POSTs of alerts that have begun to come in are answered, for `at_most` seconds.

        Nothing is posted again after it.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(at_most):
                await self._none_in_flight.wait()
        if self._reposter is not None:
            await self._reposter.close()

    async def _count(self, post: Awaitable[web.StreamResponse]) -> web.StreamResponse:
        self._in_flight += 1
        self._none_in_flight.clear()
        status = 500
        try:
            response = await post
            status = response.status
            return response
        except (RequestError, UpstreamError) as exc:
            status = exc.status
            raise
        except BodyTimeout:
            status = 408
            raise
        finally:
            self._on_post(status)
            self._in_flight -= 1
            if not self._in_flight:
                self._none_in_flight.set()

    async def _post_alerts(self, request: web.BaseRequest, held: Held) -> web.StreamResponse:
        # What goes unread is held so that it can be tried again, and that is not worth a long one.
        unheld = self._pipeline.idle and self._forwarder.streams_alerts
        limit = min(bodies.LARGE, self._body_limit) if unheld else self._body_limit
        body, whole = await bodies.read(request, held, limit)
        if not whole:
            if not self._forwarder.streams_alerts:
                return refused(413, "a POST of alerts for several Alertmanagers is longer than what may be held")
            return await self._stream(request, body, "no_memory" if 0 < len(body) <= limit else "too_long")
        whole_at, deadline = asyncio.get_running_loop().time(), self._forwarder.deadline()
        prepared = await self._prepare(request, body, held)
        async with self._passing(prepared, request) as answered:
            self._on_added(asyncio.get_running_loop().time() - whole_at)
            answer = await self._forwarder.post_alerts(
                request, prepared.body, deadline, prepared.without_annotations, answered
            )
            if 200 <= answer.status < 300:
                prepared.taken()
        response = relayed(answer)
        with contextlib.suppress(ConnectionError):  # the sender has hung up, and Alertmanager has the alerts
            await response.prepare(request)
            await response.write_eof(answer.body)
        return response

    async def _stream(self, request: web.BaseRequest, begun: bytes, why: str) -> web.StreamResponse:
        """Pass on a POST that is not held; from its last byte on Alertmanager has as long as for any other."""
        self._on_unread("idle" if self._pipeline.idle else why)
        if self._reposter is not None:
            self._reposter.forget()

        def whole() -> None:
            with contextlib.suppress(RuntimeError):  # it was answered before its end, and the time is over
                bound.reschedule(self._forwarder.deadline())

        try:
            async with asyncio.timeout(None) as bound:
                request.content.on_eof(whole)
                return await self._forwarder.stream(request, prefix=begun)
        except TimeoutError:
            if request.writer.output_size and request.transport is not None:
                request.transport.abort()  # an answer that has begun, and does not end
            raise UpstreamTimeout("Alertmanager has not answered in time") from None

    def _passing(self, prepared: Prepared, request: web.BaseRequest) -> AbstractAsyncContextManager[Answered]:
        if self._reposter is None:
            return contextlib.nullcontext(lambda status, seconds: None)
        return self._reposter.passing(prepared, request)

    async def _prepare(self, request: web.BaseRequest, body: bytes, held: Held) -> Prepared:
        # Any other type is refused by Alertmanager (415). It ignores Content-Encoding: what is packed does not decode.
        if request.content_type != "application/json":
            return Prepared(body)
        try:
            async with asyncio.timeout(self._prepare_within):
                if self._pipeline.idle:
                    return await self._pipeline.run(body)
                async with self._turn if len(body) > bodies.LARGE else contextlib.nullcontext():
                    if not await held.unfold(body):
                        self._on_unread("no_memory")
                        log.warning("a batch goes as it came: it would take more than web.max_body_memory to read it")
                        return Prepared(body)
                    return await self._pipeline.run(body)
        except TimeoutError:
            self._on_fault("late")
            log.error("a batch goes with what is known, new alerts bare: it took too long", bytes=len(body))
        except Exception:
            self._on_fault("batch")
            log.exception("a bug: a batch goes with what is known, new alerts bare")
        return self._pipeline.known_only(body)
