"""Reading the configuration anew while alerts are forwarded."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from operator import attrgetter
from typing import Final

import structlog

from proxy.app.rules import CurrentRules, read_rules
from proxy.config import Loaded, Secret, Settings, differing
from proxy.decisions.canary import Canary
from proxy.decisions.rollout import Rollout
from proxy.decisions.switch import Switch
from proxy.errors import ConfigError
from proxy.matchers import parse_matchers
from proxy.telemetry import Metrics, set_log_level

log = structlog.get_logger(__name__)

AT_ONCE: Final = ("enrichment.mode", "enrichment.canary.", "enrichment.skip", "rules.", "web.admin_token", "log.level")
"""What takes effect without a restart: settings that new alerts are asked about, and no connection or cache holds."""
FOLLOWED: Final = ("alertmanager.basic_auth.password", "alertmanager.authorization.credentials")
"""What is read again as soon as its file changes."""


class Reload:
    """Reads the settings again and puts into effect what can be. The last good configuration holds on."""

    def __init__(
        self,
        load: Callable[[], Loaded],
        running: Settings,
        rollout: Rollout,
        switch: Switch,
        current_rules: CurrentRules,
        use_key: Callable[[Secret], Awaitable[bool]],
        metrics: Metrics,
    ) -> None:
        """`load` reads them again from where they came, and raises ConfigError. `use_key` has models asked with another
        key, and says whether that worked."""
        self._load = load
        self._running = running
        self.settings = running
        """As they were read last; of those that a reload cannot put into effect, the proxy still goes by the first."""
        self._rollout = rollout
        self._switch = switch
        self._rules = current_rules
        self._use_key = use_key
        self._turn = asyncio.Lock()
        self._metrics = metrics
        self.read_at: datetime
        """When the settings that hold were read."""
        self.problems: tuple[str, ...]
        """Why those that were read since cannot be used."""
        self.at_next_start: tuple[str, ...] = ()
        """The settings that were changed, and take a restart."""
        self._read()

    async def __call__(self) -> None:
        """Reload. Raises ConfigError, and then nothing has changed."""
        async with self._turn:  # one that began earlier must not end later, with older settings
            await self._reload()

    async def _reload(self) -> None:
        try:
            loaded = await asyncio.to_thread(self._load)  # as with the rules: a long file takes a while
            rules = await read_rules(loaded.settings)
        except ConfigError as exc:
            self.problems = tuple(exc.problems)
            self._metrics.reload_worked.set(0)
            log.error("the configuration cannot be used, the last good one holds", problems="; ".join(exc.problems))
            raise
        for warning in loaded.warnings:
            log.warning("configuration", problem=warning)
        settings = loaded.settings
        self._rules.use(rules)
        self._rollout.skip([parse_matchers(matchers) for matchers in settings.enrichment.skip])
        await self._switch.configure(settings.enrichment.mode, canary_of(settings))
        set_log_level(settings.log.level)
        key = settings.llm.api_key
        if key != self._running.llm.api_key and await self._use_key(key):
            self._running = replace(self._running, llm=replace(self._running.llm, api_key=key))
        changed = differing(self.settings, settings)
        self.settings = settings
        self._read()
        log.info("configuration read anew", changed="; ".join(changed))
        if choice := self._switch.choice:
            log.warning(
                "the mode was switched, which outranks the configuration until it is reset",
                mode=choice.mode.value,
                configured=settings.enrichment.mode.value,
                by=choice.by,
            )
        self.at_next_start = tuple(
            key
            for key in differing(self._running, settings)
            if not key.startswith(AT_ONCE) and not _follows_its_file(key, self._running, settings)
        )
        if self.at_next_start:
            log.warning("some settings take effect at the next start only", settings="; ".join(self.at_next_start))

    def _read(self) -> None:
        self.read_at, self.problems = datetime.now(UTC), ()
        self._metrics.reload_worked.set(1)
        self._metrics.reloaded_at.set(self.read_at.timestamp())


def _follows_its_file(key: str, running: Settings, settings: Settings) -> bool:
    """Return whether a setting is a credential for Alertmanager whose file has changed, which needs no reload."""
    if key not in FOLLOWED:
        return False
    was, now = (attrgetter(key)(each).file for each in (running, settings))
    return was is not None and was == now


def canary_of(settings: Settings) -> Canary:
    """Return the canary that is configured."""
    configured = settings.enrichment.canary
    return Canary(configured.percent, configured.by, configured.matchers)
