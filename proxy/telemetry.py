"""Metrics and logs: names, and nothing that decides."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Mapping
from typing import Any, TextIO

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, disable_created_metrics
from structlog.typing import ExcInfo, Processor

from proxy import __version__
from proxy.errors import ClassifierOverBudget

WAITS = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2, 3, 5, 10)
ADDED = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5)
CALLS = (0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 20, 30, 60)


class Metrics:
    """All metrics of one proxy, on the registry that is passed in. Label values are closed sets."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        # A second series for each counter, which Prometheus has no use for.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no types
        self.build_info = Info("aiproxy_build", "The version that runs.", registry=registry)
        self.build_info.info({"version": __version__})
        self.reload_worked = Gauge(
            "aiproxy_config_last_reload_successful",
            "1 when the last attempt to read the configuration anew succeeded.",
            registry=registry,
        )
        self.credentials_read = Gauge(
            "aiproxy_credentials_last_reload_successful",
            "1 when the certificates and credentials for Alertmanager could be used when they were read last.",
            registry=registry,
        )
        self.credentials_read.set(1)
        self.web_configs_read = Gauge(
            "aiproxy_web_config_last_reload_successful",
            "1 when a listener's web config file, and those that it names, could be used when they were read last.",
            ["listener"],
            registry=registry,
        )
        self.reloaded_at = Gauge(
            "aiproxy_config_last_reload_success_timestamp_seconds",
            "When the configuration was last read successfully, in seconds since 1970.",
            registry=registry,
        )
        self.mode = Gauge(
            "aiproxy_mode", "0 transparent, 1 enriched, 2 transparent_with_recommendations.", registry=registry
        )
        self.connections = Gauge(
            "aiproxy_connections", "Connections that are open, by listener.", ["listener"], registry=registry
        )
        self.connections_cut = Counter(
            "aiproxy_connections_cut_total",
            "Connections that were closed for the limits of their listener, by reason.",
            ["listener", "reason"],
            registry=registry,
        )
        self.posts = Counter(
            "aiproxy_posts_total",
            "POSTs of alerts, by the status code the sender got.",
            ["code"],
            registry=registry,
        )
        self.posts_forwarded_unread = Counter(
            "aiproxy_posts_forwarded_unread_total",
            "POSTs of alerts whose bytes were forwarded without being read, by reason.",
            ["reason"],
            registry=registry,
        )
        self.alerts = Counter(
            "aiproxy_alerts_total", "Alerts in POSTs that were read, by what was added.", ["added"], registry=registry
        )
        self.faults = Counter(
            "aiproxy_faults_total",
            "Times an alert (in the stages batch and late: a whole POST) went as it came, which is a bug, by stage.",
            ["stage"],
            registry=registry,
        )
        self.reposts = Counter(
            "aiproxy_reposts_total",
            "Alerts whose text came late and was to be posted while their first notification was being gathered, by "
            "outcome.",
            ["outcome"],
            registry=registry,
        )
        self.upstream_retries = Counter(
            "aiproxy_upstream_retries_total",
            "Repeated attempts to reach Alertmanager, by cause.",
            ["cause"],
            registry=registry,
        )
        self.notifications_sent = Counter(
            "aiproxy_notifications_sent_total",
            "POSTs of alerts that were sent, or tried, by Alertmanager.",
            ["alertmanager"],
            registry=registry,
        )
        self.notifications_errors = Counter(
            "aiproxy_notifications_errors_total",
            "Of those, POSTs that were not taken: no answer, or another one than 2xx.",
            ["alertmanager"],
            registry=registry,
        )
        self.notifications_dropped = Counter(
            "aiproxy_notifications_dropped_total",
            "POSTs of alerts that one of several Alertmanagers was not sent: those before took too long, or it is "
            "suspended.",
            ["alertmanager"],
            registry=registry,
        )
        self.notifications_latency = Histogram(
            "aiproxy_notifications_latency_seconds",
            "Time from sending a POST of alerts to the answer, retries included, by Alertmanager.",
            ["alertmanager"],
            buckets=WAITS,
            registry=registry,
        )
        self.notifications_suspended = Gauge(
            "aiproxy_notifications_suspended",
            "1 while one of several Alertmanagers is tried with one POST at a time because it was silent.",
            ["alertmanager"],
            registry=registry,
        )
        self.alertmanagers = Gauge(
            "aiproxy_alertmanagers_discovered", "Alertmanagers that alerts are sent to.", registry=registry
        )
        self.post_added = Histogram(
            "aiproxy_post_added_seconds",
            "Time from the last byte of a POST to the first attempt to forward it.",
            buckets=ADDED,
            registry=registry,
        )
        self.post_waited = Histogram(
            "aiproxy_post_waited_seconds",
            "Time that a POST was held up for verdicts.",
            buckets=WAITS,
            registry=registry,
        )
        self.model_calls = Histogram(
            "aiproxy_model_call_duration_seconds",
            "Calls about a class, from the first question to the verdict, waiting in line included, by outcome.",
            ["outcome"],
            buckets=CALLS,
            registry=registry,
        )
        self.model_attempts = Histogram(
            "aiproxy_model_attempt_duration_seconds",
            "Models being asked within calls, retries included, by provider and outcome.",
            ["provider", "outcome"],
            buckets=CALLS,
            registry=registry,
        )
        self.calls_waiting = Gauge(
            "aiproxy_model_calls_waiting", "Calls that wait for others to end: see llm.concurrency.", registry=registry
        )
        self.calls_running = Gauge(
            "aiproxy_model_calls_running", "Calls that a model is being asked about.", registry=registry
        )
        self.model_requests = Counter(
            "aiproxy_model_requests_total", "Requests to a provider, retries included.", ["provider"], registry=registry
        )
        self.model_tokens = Counter(
            "aiproxy_model_tokens_total",
            "Tokens as the provider counted them, by direction: input is the prompt.",
            ["provider", "direction"],
            registry=registry,
        )
        self.model_cost = Counter(
            "aiproxy_model_cost_usd_total",
            "Price of the requests in US dollars, as far as it is known.",
            ["provider"],
            registry=registry,
        )
        self.calls_dropped = Counter(
            "aiproxy_model_calls_dropped_total",
            "Calls that were turned away because too many waited, by priority.",
            ["priority"],
            registry=registry,
        )
        self.batched_verdicts = Counter(
            "aiproxy_model_batched_verdicts_total",
            "Alerts that shared a call with others, by what became of their verdicts.",
            ["outcome"],
            registry=registry,
        )
        self.budget_limit = Gauge("aiproxy_budget_limit", "The cap of a UTC day, by unit.", ["unit"], registry=registry)
        self.budget_spent = Gauge(
            "aiproxy_budget_spent",
            "What was spent of it today, by all proxies of the store, as far as this one has heard.",
            ["unit"],
            registry=registry,
        )
        self.budget_released = Gauge(
            "aiproxy_budget_released", "What of it may have been spent by now.", ["unit"], registry=registry
        )
        self.budget_remaining = Gauge(
            "aiproxy_budget_remaining", "What of it is left for today.", ["unit"], registry=registry
        )
        self.budget_refused = Counter(
            "aiproxy_budget_refused_calls_total",
            "Calls that were not made because what may be spent by now was spent.",
            registry=registry,
        )
        self.saved_tokens = Counter(
            "aiproxy_saved_tokens_total",
            "Tokens that the class cache saved, at what a call takes on average.",
            registry=registry,
        )
        self.saved_cost = Counter(
            "aiproxy_saved_cost_usd_total", "The price of these tokens in US dollars.", registry=registry
        )
        self.class_lookups = Counter(
            "aiproxy_class_lookups_total",
            "Classes of new alerts, by where their verdict was found.",
            ["tier"],
            registry=registry,
        )
        self.verdicts = Counter(
            "aiproxy_verdicts_total",
            "Verdicts on new alerts, by source, and why where the rules gave it in the place of a model.",
            ["source", "reason"],
            registry=registry,
        )
        self.model_enabled = Gauge("aiproxy_model_enabled", "1 when a model is switched on.", registry=registry)
        self.model_usable = Gauge(
            "aiproxy_model_usable",
            "1 when the model can be asked; while it is 0 the rules decide alone.",
            registry=registry,
        )
        self.breaker_state = Gauge(
            "aiproxy_model_breaker_state",
            "Whether a model is asked, by its position: 0 is llm.model, 1 the first of llm.fallbacks. 0 closed: it is, "
            "1 half open: one call tries, 2 open: it is not.",
            ["position"],
            registry=registry,
        )
        self.breaker_opened = Counter(
            "aiproxy_model_breaker_opened_total",
            "Times a model that was asked was not any more because it failed, by its position.",
            ["position"],
            registry=registry,
        )
        self.worker_restarts = Counter(
            "aiproxy_worker_restarts_total", "Times the model worker ended and was started again.", registry=registry
        )
        self.decisions = Gauge("aiproxy_decisions_living", "Alerts with a decision that holds.", registry=registry)
        self.decisions_labelled = Gauge(
            "aiproxy_decisions_labelled", "Of those, alerts that carry labels of ours.", registry=registry
        )
        self.decisions_bare = Gauge(
            "aiproxy_decisions_bare", "Of those, alerts that go without labels of ours.", registry=registry
        )
        self.decisions_unkept = Gauge(
            "aiproxy_decisions_unkept", "Of those, what the store is still to be told.", registry=registry
        )
        self.handovers = Counter(
            "aiproxy_handovers_total",
            "Alerts whose labels gave way to those another proxy claimed first; each may have paged once more.",
            registry=registry,
        )
        self.handovers_pending = Gauge(
            "aiproxy_handovers_pending",
            "Alerts whose former labels Alertmanager is still to be told the end of.",
            registry=registry,
        )
        self.identity_conflicts = Gauge(
            "aiproxy_identity_conflicts",
            "Alerts that Alertmanager held under more than one set of our labels when it was read last.",
            registry=registry,
        )
        self.labels_by_rules = Gauge(
            "aiproxy_labels_by_rules",
            "1 while new alerts get the rules' labels, because several proxies might not agree on a model's.",
            registry=registry,
        )
        self.replicas = Gauge(
            "aiproxy_replicas",
            "Proxies that share the store, or that Alertmanager's peers suggest.",
            registry=registry,
        )
        self.replicas_agree = Gauge(
            "aiproxy_replicas_agree",
            "1 while all proxies of the store have the same configuration and rules.",
            registry=registry,
        )
        self.converged = Gauge(
            "aiproxy_converged",
            "1 while the store knows all decisions, and no alert is being handed over.",
            registry=registry,
        )
        self.store_up = Gauge("aiproxy_store_up", "1 while the decision store answers.", registry=registry)
        self.recovered = Gauge(
            "aiproxy_recovery_last_success",
            "1 when what Alertmanager holds could be read at the last attempt.",
            registry=registry,
        )
        self.store_errors = Counter(
            "aiproxy_store_errors_total", "Questions that the decision store did not answer.", registry=registry
        )

    # What the rooms report: they know these methods as their Observer, and nothing of metrics.

    def unread(self, reason: str) -> None:
        """A body was forwarded without being read."""
        self.posts_forwarded_unread.labels(reason).inc()

    def alert(self, added: str) -> None:
        """An alert leaves."""
        self.alerts.labels(added).inc()

    def fault(self, stage: str) -> None:
        """A bug of ours cost an alert, or a batch, what would have been added."""
        self.faults.labels(stage).inc()

    def reposted(self, outcome: str) -> None:
        """Text that came late was posted, or was not."""
        self.reposts.labels(outcome).inc()

    def asked(self, outcome: str, seconds: float) -> None:
        """A call of the model ended."""
        self.model_calls.labels(outcome).observe(seconds)
        if outcome == ClassifierOverBudget.reason:
            self.budget_refused.inc()

    def used(self, provider: str, *, requests: int, tokens: Mapping[str, int], usd: float) -> None:
        """A call took so much; `tokens` by direction."""
        self.model_requests.labels(provider).inc(requests)
        for direction, count in tokens.items():
            self.model_tokens.labels(provider, direction).inc(count)
        self.model_cost.labels(provider).inc(usd)

    def saved(self, tokens: float, usd: float) -> None:
        """The class cache knew what a call would have taken so much for."""
        self.saved_tokens.inc(tokens)
        self.saved_cost.inc(usd)

    def waited(self, seconds: float) -> None:
        """A POST was held up for verdicts."""
        self.post_waited.observe(seconds)

    def looked_up(self, tier: str, n: int) -> None:
        """Classes were looked up."""
        self.class_lookups.labels(tier).inc(n)

    def verdict(self, source: str, reason: str) -> None:
        """A new alert got its verdict."""
        self.verdicts.labels(source, reason).inc()

    def cut(self, listener: str, reason: str) -> None:
        """A connection was closed for the limits of its listener."""
        self.connections_cut.labels(listener, reason).inc()

    def web_config_read(self, listener: str, worked: bool) -> None:
        """A listener's web config file was read."""
        self.web_configs_read.labels(listener).set(worked)

    def posted(self, code: int) -> None:
        """A POST of alerts was answered."""
        self.posts.labels(str(code)).inc()

    def retried(self, cause: str) -> None:
        """Alertmanager was tried once more."""
        self.upstream_retries.labels(cause).inc()


def configure_logging(level: str, output: str, stream: TextIO | None = None) -> None:
    """Send logs of every library and our own to `stream` (standard error) as `logfmt`, `json` or `console`."""
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
    ]
    target = stream or sys.stderr
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_renderers(output, target)],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


def set_log_level(level: str) -> None:
    """Log from `level` on."""
    logging.getLogger().setLevel(level.upper())


def _renderers(output: str, target: Any) -> list[Processor]:
    if output == "console":
        # Its own way, where `rich` is installed, shows the values of all variables.
        return [structlog.dev.ConsoleRenderer(colors=target.isatty(), exception_formatter=_write_traced)]
    last: Processor = (
        structlog.processors.JSONRenderer()
        if output == "json"
        else structlog.processors.LogfmtRenderer(key_order=["ts", "level", "event"], drop_missing=True)
    )
    return [structlog.processors.ExceptionRenderer(_traced), last]


def _traced(exc_info: ExcInfo) -> str:
    """Return the traceback of an exception and of those that led to it, without what they say.

    That is for whoever raised it: it may hold an alert's words, a prompt or a key.
    """
    found: list[BaseException] = []
    exc: BaseException | None = exc_info[1]
    while exc is not None and exc not in found:
        found.append(exc)
        exc = exc.__cause__ or (None if exc.__suppress_context__ else exc.__context__)
    return "\n".join(
        "".join(["Traceback (most recent call last):\n", *traceback.format_tb(one.__traceback__), type(one).__name__])
        for one in reversed(found)
    )


def _write_traced(to: TextIO, exc_info: ExcInfo) -> None:
    to.write("\n" + _traced(exc_info))
