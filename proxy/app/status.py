"""What the proxy tells about itself: the status object of the admin API, and the gauges that say the same."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from proxy import __version__
from proxy.app.model import ChosenModel
from proxy.app.reload import Reload
from proxy.app.rules import CurrentRules
from proxy.classification.service import ClassificationService
from proxy.config import Settings
from proxy.decisions.heartbeat import Heartbeat
from proxy.decisions.living import Living
from proxy.decisions.reach import Reach
from proxy.decisions.recovery import Recovery
from proxy.decisions.rollout import Rollout
from proxy.decisions.state import canary_shown
from proxy.decisions.store import DecisionStore
from proxy.decisions.switch import Switch
from proxy.decisions.watch import Watch
from proxy.telemetry import Metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The parts of a running proxy, seen from outside."""

    settings: Settings
    model: ChosenModel
    service: ClassificationService
    rules: CurrentRules
    rollout: Rollout
    switch: Switch
    living: Living
    store: DecisionStore
    reach: Reach
    watch: Watch
    heartbeat: Heartbeat
    recovery: Recovery
    reload: Reload
    labels_by_rules: Callable[[], str]
    agreement: Callable[[], str]
    serving: Callable[[], bool]
    alertmanagers: Callable[[], list[dict[str, str]]]
    """Of several, the URL and the state of each; empty when there is only ever one."""
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def replicas(self) -> int:
        """How many proxies there are, as far as anybody says."""
        return max(len(self.heartbeat.peers), self.settings.alertmanager.replicas, self.watch.suggested)

    @property
    def converged(self) -> bool:
        """Whether the store has every decision, and Alertmanager the end of all former labels."""
        return self.reach.up and not self.living.unkept and not self.living.handing_over

    def export(self, metrics: Metrics) -> None:
        """Have the gauges read from here at every scrape."""
        living = self.living
        metrics.mode.set_function(lambda: self.rollout.mode.number)
        metrics.decisions.set_function(lambda: len(living))
        metrics.decisions_labelled.set_function(lambda: living.labelled)
        metrics.decisions_bare.set_function(lambda: len(living) - living.labelled)
        metrics.decisions_unkept.set_function(lambda: living.unkept)
        metrics.handovers_pending.set_function(lambda: living.handing_over)
        metrics.identity_conflicts.set_function(lambda: self.watch.conflicts)
        metrics.labels_by_rules.set_function(lambda: bool(self.labels_by_rules()))
        metrics.replicas.set_function(lambda: self.replicas)
        metrics.replicas_agree.set_function(lambda: self.heartbeat.agree if self.store.shared else math.nan)
        metrics.converged.set_function(lambda: self.converged)
        metrics.store_up.set_function(lambda: self.reach.up)

    def __call__(self) -> dict[str, Any]:
        """Return the JSON object of `GET /api/v1/status`, as docs/reference/admin-api.md describes it."""
        since, choice = self.rollout.labelling_since, self.switch.choice
        return {
            "version": __version__,
            "started_at": self.started_at.isoformat(),
            "ready": self.serving(),
            "mode": self.rollout.mode.value,
            "mode_source": self.switch.source,
            "switched": choice.shown() if choice else None,
            "canary": canary_shown(self.rollout.canary),
            "labelling_since": since.isoformat() if since else None,
            "labels_by_rules": self.labels_by_rules(),
            "configuration": {
                "read_at": self.reload.read_at.isoformat(),
                "problems": list(self.reload.problems),
                "at_next_start": list(self.reload.at_next_start),
            },
            "alertmanager": {
                "url": ", ".join(self.settings.alertmanager.url),
                "each": self.alertmanagers(),
                "recovered": self.recovery.done,
                "recovered_alerts": self.recovery.found,
                "peers": self.watch.peers,
                "identity_conflicts": self.watch.conflicts,
            },
            "model": self.model.status() | {"last_outcome": self.service.last_outcome},
            "budget": self.model.budget.status() if self.model.budget is not None else None,
            "saved": {
                "calls": self.model.savings.calls,
                "tokens": round(self.model.savings.tokens),
                "cost_usd": round(self.model.savings.usd, 6),
            },
            "store": {
                "kind": self.store.kind,
                "url": self.settings.store.url,
                "shared": self.store.shared,
                "up": self.reach.up,
                "error": self.reach.error,
                "unkept": self.living.unkept,
            },
            "decisions": {
                "living": len(self.living),
                "labelled": self.living.labelled,
                "bare": len(self.living) - self.living.labelled,
                "handing_over": self.living.handing_over,
                "full": self.living.full,
            },
            "replicas": {
                "count": self.replicas,
                "name": self.heartbeat.name,
                "agree": self.heartbeat.agree if self.store.shared else None,
                "agreement": self.agreement(),
                "peers": self.heartbeat.peers,
            },
            "converged": self.converged,
            "rules": {"hash": self.rules.hash},
        }
