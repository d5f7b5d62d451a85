"""The composition root: builds a proxy from its settings, and takes it down again.

The only reader of the settings and the only importer of adapters. `build` serves the command line and the tests alike.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import signal
import socket
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import structlog
from aiohttp import web
from cachetools import TTLCache
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from yarl import URL

from proxy import __version__
from proxy.admin.api import admin_api
from proxy.classification import prompts
from proxy.classification.allowance import WaitingAllowance
from proxy.classification.classification import Classification
from proxy.classification.classifier import Classifier
from proxy.classification.rules import Rules
from proxy.classification.service import ClassificationService, ClassKey
from proxy.classification.worker.keys import needs_key
from proxy.config import Address, Settings
from proxy.decisions.decider import Decider
from proxy.decisions.decision import Names
from proxy.decisions.living import Living
from proxy.decisions.recovery import Recovery
from proxy.decisions.rollout import Rollout
from proxy.decisions.stores.memory import MemoryStore
from proxy.decisions.switch import Switch
from proxy.gateway.alertmanager import AlertmanagerClient
from proxy.gateway.forwarder import Forwarder
from proxy.gateway.listener import DataListener
from proxy.gateway.pipeline import Pipeline
from proxy.matchers import parse_matchers
from proxy.policy import Mode
from proxy.telemetry import Metrics

if TYPE_CHECKING:
    from proxy.classification.worker.client import ModelWorker

log = structlog.get_logger(__name__)

IDLE: Final = 3600.0
"""Seconds that a kept-alive connection may be idle. Prometheus posts through one connection with gaps of minutes, and
a POST that meets the closing of its connection is lost."""
HEADER_LIMIT: Final = 1 << 20
"""Bytes of one header or of the request line: Go's limit for all of them together."""
PREPARE_BEYOND_BUDGET: Final = 2.0
"""Seconds that the work on a batch itself may take. Prometheus' batches take milliseconds; a POST of 40 MB takes longer
than this, and is forwarded as it came while there is time left for Alertmanager."""
DRAIN: Final = 10.0
"""Seconds at most for what has come in, so that SIGTERM ends within 15."""
CACHED_CLASSES: Final = 10_000
EXPIRE_EVERY: Final = 60.0


@dataclass(frozen=True, slots=True)
class Running:
    """A proxy that serves."""

    data_port: int
    admin_port: int


async def serve(settings: Settings) -> None:
    """Run a proxy until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    async with build(settings):
        await stop.wait()
        log.info("stopping: answering what has come in")
    log.info("stopped")


@asynccontextmanager
async def build(settings: Settings, *, model: Classifier | None = None) -> AsyncIterator[Running]:
    """Run a proxy with `settings` until the block ends; `model` takes the place of the configured one.

    Long and straight on purpose: what is opened first is closed last. Raises OSError when a port is taken.
    """
    async with AsyncExitStack() as stack:
        metrics = Metrics(_registry())
        started_at = datetime.now(UTC)
        url = URL(settings.alertmanager.url)
        serving = asyncio.Event()
        names = Names(
            settings.enrichment.severity_label,
            settings.enrichment.category_label,
            settings.enrichment.annotation_prefix,
        )
        rules = Rules.shipped()
        living = Living()
        store = MemoryStore()
        rollout = Rollout(
            settings.enrichment.mode,
            names=names,
            store=store,
            skip=[parse_matchers(matchers) for matchers in settings.enrichment.skip],
        )
        await rollout.start()

        the_model = _Model(settings, metrics)
        await the_model.open(model, stack)
        budget = settings.enrichment.budget.total_seconds()
        allowance = WaitingAllowance(2 * budget)
        service = ClassificationService(
            rules=rules,
            model=the_model.classifier,
            salt=f"{settings.llm.provider}/{settings.llm.model}/{prompts.VERSION}",
            cache=_class_cache(settings),
            allowance=allowance,
            observer=metrics,
            fallback=settings.llm.enable_fallback,
            floor=settings.enrichment.severity_floor,
        )
        stack.push_async_callback(service.close)

        session = await stack.enter_async_context(_session())
        decider = Decider(
            living=living,
            store=store,
            verdicts=service,
            names=names,
            on_fault=metrics.fault,
            on_store_error=metrics.store_errors.inc,
        )
        recovery = Recovery(
            AlertmanagerClient(session, url, settings.alertmanager.timeout.total_seconds()),
            decider,
            names,
            allowance,
            on_outcome=lambda worked: metrics.recovered.set(worked),
        )
        switch = Switch(rollout, recovery)
        pipeline = Pipeline(
            rollout=rollout, decider=decider, living=living, recovery=recovery, budget=budget, observer=metrics
        )
        forwarder = Forwarder(
            session,
            await stack.enter_async_context(_session(keep_alive=False)),
            url,
            settings.alertmanager.timeout.total_seconds(),
            on_retry=metrics.retried,
        )
        listener = DataListener(
            forwarder,
            pipeline,
            prepare_within=budget + PREPARE_BEYOND_BUDGET,
            on_post=metrics.posted,
            on_fault=metrics.fault,
        )
        metrics.mode.set_function(lambda: rollout.mode.number)
        metrics.decisions.set_function(lambda: len(living))
        metrics.decisions_labelled.set_function(lambda: living.labelled)

        def status() -> dict[str, Any]:
            return {
                "version": __version__,
                "started_at": started_at.isoformat(),
                "ready": serving.is_set(),
                "mode": rollout.mode.value,
                "mode_source": rollout.source,
                "labelling_since": rollout.labelling_since.isoformat() if rollout.labelling_since else None,
                "alertmanager": {"url": str(url), "recovered": recovery.done},
                "model": the_model.status() | {"last_outcome": service.last_outcome},
                "store": {"url": settings.store.url},
                "decisions": {
                    "living": len(living),
                    "labelled": living.labelled,
                    "bare": len(living) - living.labelled,
                },
                "rules": {"hash": rules.hash},
            }

        # The admin listener opens first and closes last: probes get an answer all the while.
        admin = admin_api(
            registry=metrics.registry,
            current=rollout,
            switch=switch,
            ready=serving.is_set,
            status=status,
            token=settings.web.admin_token.reveal(),
            loopback=_is_loopback(settings.web.admin_listen_address),
        )
        admin_port = await _listen(
            stack, web.AppRunner(admin, access_log=None, shutdown_timeout=1), settings.web.admin_listen_address, "admin"
        )
        _background(stack, "recovery", recovery.run())
        _background(stack, "expiry", _expire(living, decider))
        server = web.Server(
            listener.handle,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=IDLE,
            max_line_size=HEADER_LIMIT,
            max_field_size=HEADER_LIMIT,
        )
        data_port = await _listen(
            stack, web.ServerRunner(server, shutdown_timeout=1), settings.web.listen_address, "data"
        )
        stack.push_async_callback(listener.drained, min(settings.alertmanager.timeout.total_seconds() + 1, DRAIN))
        serving.set()
        stack.callback(serving.clear)
        _banner(settings, rollout, the_model, data_port, admin_port)
        yield Running(data_port, admin_port)


class _Model:
    """The model as the rest of the proxy sees it: a classifier or none, and why."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._llm = settings.llm
        self._metrics = metrics
        self.classifier: Classifier | None = None
        self.key = "not needed" if not self._llm.enabled else "set" if self._llm.api_key else "missing"
        self.state = "disabled"
        self._worker: ModelWorker | None = None
        metrics.model_enabled.set(self._llm.enabled)

    @property
    def name(self) -> str:
        return f"{self._llm.provider}/{self._llm.model}" if self._llm.enabled else "none"

    async def open(self, given: Classifier | None, stack: AsyncExitStack) -> None:
        """Start what the settings ask for. A model that cannot be used is loud, and alerts flow all the same."""
        if given is not None:
            self.classifier = given
            self._enter("ready")
            return
        if not self._llm.enabled:
            return
        base_url = self._llm.base_url
        if not needs_key(self._llm.provider, base_url):
            self.key = "set" if self._llm.api_key else "not needed"
        elif not self._llm.api_key:
            self._enter("unusable")
            log.error(
                "the model cannot be used, the rules decide alone: no API key;"
                " set LLM_API_KEY, llm.api_key or llm.api_key_file",
                model=self.name,
            )
            return
        from proxy.classification.worker.client import ModelConfig, ModelWorker  # late: the rules need none of it

        worker = ModelWorker(
            ModelConfig(
                provider=self._llm.provider,
                model=self._llm.model,
                api_key=self._llm.api_key.reveal(),
                base_url=base_url,
                timeout=self._llm.timeout,
                max_retries=self._llm.max_retries,
                concurrency=self._llm.concurrency,
                max_tokens=self._llm.max_tokens,
            ),
            on_state=lambda state: self._enter(state.value),
            on_restart=self._metrics.worker_restarts.inc,
        )
        self.classifier = await stack.enter_async_context(worker)
        self._worker = worker

    def status(self) -> dict[str, Any]:
        why = self._worker.why_unusable if self._worker else ""
        return {"enabled": self._llm.enabled, "name": self.name, "key": self.key, "state": self.state, "why": why}

    def _enter(self, state: str) -> None:
        self.state = state
        self._metrics.model_usable.set(state == "ready")


def _registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


def _class_cache(settings: Settings) -> TTLCache[ClassKey, Classification] | None:
    if not settings.llm.enable_cache:
        return None
    return TTLCache(CACHED_CLASSES, settings.llm.cache_ttl.total_seconds())


def _session(*, keep_alive: bool = True) -> aiohttp.ClientSession:
    connector = (
        aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE)
        if keep_alive
        else aiohttp.TCPConnector(limit=0, force_close=True)
    )
    return aiohttp.ClientSession(
        connector=connector,
        # Nothing that the sender did not say, and nothing remembered from one request to the next.
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        max_line_size=HEADER_LIMIT,
        max_field_size=HEADER_LIMIT,
    )


async def _listen(stack: AsyncExitStack, runner: web.BaseRunner, address: Address, name: str) -> int:
    """Open a listener and return its port. Raises OSError that names the setting."""
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    try:
        site: web.BaseSite = (
            web.TCPSite(runner, address.host, address.port)
            if address.host
            else web.SockSite(runner, _on_all_interfaces(address.port))
        )
        await site.start()
    except OSError as exc:
        setting = "web.listen_address" if name == "data" else "web.admin_listen_address"
        raise OSError(exc.errno, f"{setting}: cannot listen on {address}: {exc.strerror}") from exc
    return int(runner.addresses[0][1])


def _on_all_interfaces(port: int) -> socket.socket:
    """Return a socket for both families: with one socket for each, port 0 would be two ports."""
    if socket.has_dualstack_ipv6():
        try:
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        except OSError as exc:
            if exc.errno not in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
                raise
    return socket.create_server(("", port))


def _background(stack: AsyncExitStack, name: str, work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.create_task(work, name=name)

    async def end() -> None:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    stack.push_async_callback(end)


async def _expire(living: Living, decider: Decider) -> None:
    while True:
        await asyncio.sleep(EXPIRE_EVERY)
        living.expire()
        await decider.forget_ended()


def _banner(settings: Settings, rollout: Rollout, model: _Model, data_port: int, admin_port: int) -> None:
    log.info(
        "alertmanager-ai-proxy serves",
        version=__version__,
        mode=rollout.mode.value,
        model=model.name,
        key=model.key,
        store=settings.store.url,
        alertmanager=settings.alertmanager.url,
        listen=f"{settings.web.listen_address.host}:{data_port}",
        admin=f"{settings.web.admin_listen_address.host}:{admin_port}",
    )
    if rollout.mode is Mode.ENRICHED:
        log.info("alerts that fire already keep the labels they have; AI labels are for those that begin now")
    if settings.llm.enabled and rollout.mode is Mode.TRANSPARENT:
        log.info("a model is configured, and nothing asks it in mode transparent; see enrichment.mode")
    if not settings.llm.enabled and not settings.llm.enable_fallback and rollout.mode is not Mode.TRANSPARENT:
        log.warning("nothing will be added: llm.enabled and llm.enable_fallback are both false")


def _is_loopback(address: Address) -> bool:
    try:
        return ipaddress.ip_address(address.host).is_loopback
    except ValueError:
        return address.host == "localhost"
