"""Builds a proxy from its settings, and takes it down again.

The only reader of the settings and the only importer of adapters. `build` serves the command line and the tests alike.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import secrets
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import structlog
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from proxy import __version__
from proxy.admin.api import admin_api
from proxy.app.doors import admin_runner, chosen_doors, data_runner
from proxy.app.files import raise_file_limit, warn_of_too_few
from proxy.app.model import ChosenModel
from proxy.app.prompting import chosen_prompts
from proxy.app.reload import Reload, canary_of
from proxy.app.rules import CurrentRules, chosen_rules
from proxy.app.service import chosen_service
from proxy.app.sockets import listen
from proxy.app.status import Status
from proxy.app.storage import open_store, open_verdicts
from proxy.app.upstream import Upstream, open_upstream
from proxy.classification.allowance import WaitingAllowance
from proxy.classification.cache import ClassCache
from proxy.classification.classifier import Classifier
from proxy.config import Loaded, Settings, masked
from proxy.decisions.decider import Decider
from proxy.decisions.decision import Names
from proxy.decisions.directory import Directory
from proxy.decisions.heartbeat import Heartbeat
from proxy.decisions.keeper import Keeper
from proxy.decisions.living import Living
from proxy.decisions.reach import Reach
from proxy.decisions.recovery import Recovery
from proxy.decisions.rollout import Rollout
from proxy.decisions.stores.remembered import NAME, StateFile
from proxy.decisions.switch import Switch
from proxy.decisions.watch import Watch
from proxy.errors import ConfigError
from proxy.gateway.bodies import BodyMemory
from proxy.gateway.listener import DataListener
from proxy.gateway.pipeline import Pipeline
from proxy.gateway.repost import Reposter
from proxy.matchers import parse_matchers
from proxy.policy import Mode
from proxy.telemetry import Metrics

log = structlog.get_logger(__name__)

PREPARE_BEYOND_BUDGET: Final = 2.0
"""Seconds that the work on a batch itself may take. Prometheus' batches take milliseconds; a POST of 40 MB takes longer
than this, and is forwarded as it came while there is time left for Alertmanager."""
DRAIN: Final = 10.0
"""Seconds at most for what has come in, so that SIGTERM ends within 15."""
LAST_WORDS: Final = 1.0
"""Seconds at most for what the store is to be told before the proxy begins, and when it stops."""
_DECIDING: Final = (
    "enabled", "provider", "model", "base_url", "fallbacks", "enable_fallback", "min_confidence", "object_labels",
)  # fmt: skip
"""Of the model's settings, those that a verdict's labels depend on."""
_NOT_ALONE: Final = (
    "A switch of one proxy alone would give alerts two identities; set store.url to a Redis that all share, or"
    " enrichment.mode in the configuration of all"
)
_NOT_ALL: Final = (
    "The others would go on as they are, and alerts that begin would have two identities until they follow; force"
    " switches all the same"
)


@dataclass(frozen=True, slots=True)
class Running:
    """A proxy that serves."""

    data_port: int
    admin_port: int
    reload: Callable[[], Awaitable[None]]
    """Reads the settings again. Raises ConfigError, and then nothing has changed."""


async def serve(settings: Settings, load: Callable[[], Loaded] | None = None) -> None:
    """Run a proxy until SIGTERM or SIGINT, and end at once at a second one. At SIGHUP the settings are read again by
    `load`."""
    stop, hangup = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def stopping(signum: int) -> None:
        if stop.is_set():
            log.warning("stopped at once, by a second signal")
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)  # so that whoever waits for us sees what ended us
        stop.set()

    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stopping, signum)
    # From the first moment on: unheard, the signal ends a process.
    loop.add_signal_handler(signal.SIGHUP, hangup.set)
    warn_of_too_few(raise_file_limit(), settings.web.max_connections)
    async with build(settings, load=load) as running, AsyncExitStack() as stack:
        _background(stack, "reload", _reload_at(hangup, running.reload))
        await stop.wait()
        log.info("stopping: answering what has come in")
    log.info("stopped")


@asynccontextmanager
async def build(
    settings: Settings, *, model: Classifier | None = None, load: Callable[[], Loaded] | None = None
) -> AsyncIterator[Running]:
    """Run a proxy with `settings` until the block ends; `model` takes the place of the configured one.

    `load` reads the settings again for a reload; without it they stay as they are.

    Long and straight: what is opened first is closed last. Raises OSError (a taken port), ConfigError (the template,
    the rules).
    """
    async with AsyncExitStack() as stack:
        metrics = Metrics(_registry())
        serving = asyncio.Event()
        names = Names(
            settings.enrichment.severity_label,
            settings.enrichment.category_label,
            settings.enrichment.annotation_prefix,
            settings.enrichment.former_labels,
        )
        rules = CurrentRules(chosen_rules(settings))
        store = await open_store(settings, stack)
        living = Living(capacity=settings.store.max_decisions, shared=store.shared)
        reach = Reach(shared=store.shared, on_error=metrics.store_errors.inc)
        canary = canary_of(settings)
        rollout = Rollout(
            settings.enrichment.mode,
            names=names,
            canary=canary,
            skip=[parse_matchers(matchers) for matchers in settings.enrichment.skip],
            bare_before=lambda: living.bare_before,
        )

        prompts = chosen_prompts(settings)
        the_model = ChosenModel(settings, prompts, metrics, rules)
        await the_model.open(model, stack)
        budget = settings.enrichment.budget.total_seconds()
        allowance = WaitingAllowance(2 * budget)
        service = chosen_service(
            settings,
            rules,
            prompts,
            the_model,
            metrics,
            cache=await _class_cache(settings, stack) if the_model.classifier is not None else None,
            allowance=allowance,
        )
        stack.push_async_callback(service.close)

        upstream = await open_upstream(settings, stack, metrics)
        watch = Watch(
            upstream.own,
            names,
            replicas=settings.alertmanager.replicas or None,
            shared=store.shared,
            sends_to=upstream.sends_to,
        )
        keeper = Keeper(living, store, reach, on_handover=metrics.handovers.inc)

        def labels_by_rules() -> str:
            """Why several proxies could disagree on what a model says; empty when they cannot."""
            if not store.shared:
                return f"{watch.why_several}, and they share no store" if watch.several else ""
            if not reach.trusted:
                return "the shared store is away, or has just come back"
            return missing()

        def missing() -> str:
            there = heartbeat.reaching
            return "" if there >= watch.expected else f"only {there} of {watch.expected} proxies reach the shared store"

        def refused(force: bool) -> str:
            if not store.shared:
                return f"{watch.why_several}. {_NOT_ALONE}" if watch.several else ""
            return f"{why}. {_NOT_ALL}" if not force and (why := missing()) else ""

        reposter: Reposter | None = None
        if settings.enrichment.repost and upstream.single is not None:
            reposter = await stack.enter_async_context(
                Reposter(
                    # Transparent adds no text, not even to alerts that were sent before the switch.
                    decision_of=lambda one: None if rollout.mode is Mode.TRANSPARENT else decider.decision(one),
                    post=upstream.single.send,
                    on_outcome=metrics.reposted,
                )
            )
        decider = Decider(
            living=living,
            store=store,
            reach=reach,
            keeper=keeper,
            verdicts=service,
            names=names,
            on_fault=metrics.fault,
            by_rules=labels_by_rules,
            on_text=_nobody if reposter is None else reposter.text_landed,
        )
        recovery = Recovery(
            upstream.own,
            decider,
            keeper,
            names,
            allowance,
            watch,
            on_outcome=lambda worked: metrics.recovered.set(worked),
        )

        def token() -> str:
            return reload.settings.web.admin_token.reveal()

        def agreement() -> str:
            return _agreement(settings, reload.settings, rules, prompts.version)

        heartbeat = Heartbeat(
            store,
            reach,
            living,
            name=f"{socket.gethostname()}/{secrets.token_hex(4)}",
            me=lambda: {
                "version": __version__,
                "mode": rollout.mode.value,
                "labelled": living.labelled,
                "agreement": agreement(),
                "reaches": reach.trusted,
            },
        )
        switch = Switch(
            rollout,
            recovery,
            store,
            (settings.enrichment.mode, canary),
            refused=refused,
            memory=StateFile(settings.storage.path / NAME) if store.shared else None,
            others_label=lambda: heartbeat.others_label,
        )
        reload = Reload(
            load or (lambda: Loaded(settings, (), {})), settings, rollout, switch, rules, the_model.use_key, metrics
        )
        known, written = await heartbeat.first()
        with contextlib.suppress(TimeoutError):  # the mode is applied before it is written, which a disk may hold up
            async with asyncio.timeout(LAST_WORDS):
                await switch.start(written, known=known)
        pipeline = Pipeline(
            rollout=rollout,
            decider=decider,
            living=living,
            recovery=recovery,
            budget=budget,
            observer=metrics,
            others_label=lambda: heartbeat.others_label or switch.is_switching,
            on_resolved=_nobody if reposter is None else reposter.resolved,
        )
        listener = DataListener(
            upstream.forwarder,
            pipeline,
            # Time is left for Alertmanager even where little is between the two.
            prepare_within=min(
                budget + PREPARE_BEYOND_BUDGET, (budget + settings.alertmanager.timeout.total_seconds()) / 2
            ),
            body_limit=settings.web.max_body_size,
            memory=BodyMemory(settings.web.max_body_memory),
            on_unread=metrics.unread,
            on_post=metrics.posted,
            on_fault=metrics.fault,
            on_added=metrics.post_added.observe,
            reposter=reposter,
        )
        status = Status(
            settings=settings,
            model=the_model,
            service=service,
            rules=rules,
            rollout=rollout,
            switch=switch,
            living=living,
            store=store,
            reach=reach,
            watch=watch,
            heartbeat=heartbeat,
            recovery=recovery,
            reload=reload,
            labels_by_rules=labels_by_rules,
            agreement=agreement,
            serving=serving.is_set,
            alertmanagers=upstream.states,
        )
        status.export(metrics)

        doors = chosen_doors(settings, token, metrics.web_config_read)
        # The admin listener opens first and closes last: probes get an answer all the while.
        admin = admin_api(
            registry=metrics.registry,
            current=rollout,
            switch=switch,
            canary=lambda: canary_of(reload.settings),
            directory=Directory(living, store, reach),
            explained=rules.explained,
            reload=reload,
            ready=serving.is_set,
            status=status,
            token=token,
            loopback=settings.web.admin_listen_address.is_loopback,
        )
        runs_admin = admin_runner(admin, settings, metrics, doors.get("admin"))
        admin_port = await listen(stack, runs_admin, settings.web.admin_listen_address, "admin")
        stack.push_async_callback(keeper.finish, LAST_WORDS)
        _background(stack, "recovery", recovery.run())
        _background(stack, "keeper", keeper.run())
        _background(stack, "heartbeat", heartbeat.run(switch))
        _background(stack, "switch", switch.run())
        _background(stack, "watch", watch.run())
        if upstream.watching is not None:
            _background(stack, "discovery", upstream.watching())
        runs_data = data_runner(listener.handle, settings, metrics, doors.get("data"))
        data_port = await listen(stack, runs_data, settings.web.listen_address, "data")
        at_most = min(settings.alertmanager.timeout.total_seconds() + 1, DRAIN)
        stack.push_async_callback(_drained, listener, upstream, at_most)
        serving.set()
        stack.callback(serving.clear)
        _banner(settings, rollout, the_model, data_port, admin_port)
        yield Running(data_port, admin_port, reload)


async def _drained(listener: DataListener, upstream: Upstream, at_most: float) -> None:
    end = asyncio.get_running_loop().time() + at_most
    await listener.drained(at_most)
    if upstream.drained is not None:
        await upstream.drained(end - asyncio.get_running_loop().time())


def _registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


async def _class_cache(settings: Settings, stack: AsyncExitStack) -> ClassCache | None:
    if not settings.llm.enable_cache:
        return None
    return ClassCache(
        settings.llm.cache_ttl.total_seconds(),
        store=await open_verdicts(settings, stack),
    )


def _agreement(begun: Settings, read: Settings, rules: CurrentRules, prompt: str) -> str:
    """Return a hash of everything by which two proxies could label one alert differently.

    Of what a reload changes, as it was `read` last; of the rest, as the proxy has `begun` with it.
    """
    now, then = masked(read)["enrichment"], masked(begun)
    common = [
        __version__,
        rules.hash,
        prompt,
        {key: now[key] for key in ("mode", "skip", "canary")},
        {key: then["enrichment"][key] for key in ("severity_floor", "severity_label", "category_label")},
        {key: then["llm"][key] for key in _DECIDING},
    ]
    return hashlib.blake2b(json.dumps(common, sort_keys=True).encode(), digest_size=8).hexdigest()


async def _reload_at(hangup: asyncio.Event, reload: Callable[[], Awaitable[None]]) -> None:
    while True:
        await hangup.wait()
        hangup.clear()
        try:
            await reload()
        except ConfigError:
            pass  # said already; the last good configuration holds
        except Exception:
            log.exception("a bug: the configuration was not read anew")


def _ended(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (exc := task.exception()):
        log.error("a bug: something that should go on has ended; restart the proxy", task=task.get_name(), exc_info=exc)


def _nobody(_: object) -> None:
    """Hear it for nobody."""


def _background(stack: AsyncExitStack, name: str, work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(_ended)

    async def end() -> None:
        task.cancel()
        # One that has died already was told of then, and must not spoil the stop.
        await asyncio.gather(task, return_exceptions=True)

    stack.push_async_callback(end)


def _banner(settings: Settings, rollout: Rollout, model: ChosenModel, data_port: int, admin_port: int) -> None:
    log.info(
        "alertmanager-ai-proxy serves",
        version=__version__,
        mode=rollout.mode.value,
        model=model.name,
        key=model.key,
        store=settings.store.url,
        alertmanager=", ".join(settings.alertmanager.url),
        listen=f"{settings.web.listen_address.host}:{data_port}",
        admin=f"{settings.web.admin_listen_address.host}:{admin_port}",
    )
    if rollout.mode is Mode.ENRICHED:
        log.info("alerts that fire already keep the labels they have; AI labels are for those that begin now")
    if settings.llm.enabled and rollout.mode is Mode.TRANSPARENT:
        log.info("a model is configured, and nothing asks it in mode transparent; see enrichment.mode")
    if not settings.llm.enabled and not settings.llm.enable_fallback and rollout.mode is not Mode.TRANSPARENT:
        log.warning("nothing will be added: llm.enabled and llm.enable_fallback are both false")
