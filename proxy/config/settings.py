"""The settings, each declared once: here.

A field is its YAML key, its variable, its flag and its row of the reference:

    class Llm(Section):
        timeout: Duration = ...     llm.timeout | LLM_TIMEOUT | --llm.timeout | docs/reference/configuration.md

A secret has no flag, and a companion that names a file with it: `api_key` brings `api_key_file`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

from proxy.config.alertmanager import Alertmanager
from proxy.config.kinds import (
    AddedLabel,
    Between,
    Duration,
    FileKind,
    LabelName,
    Matchers,
    ModelUrl,
    NamePrefix,
    Percent,
    Regex,
    Secret,
    SecretKind,
    Section,
    StoreUrl,
    setting,
)
from proxy.config.models import Model, ModelName
from proxy.config.remark import Remark
from proxy.config.rules import Rules
from proxy.config.spending import Budget, Price, doubled_prices, per_proxy, too_small
from proxy.config.web import Web
from proxy.durations import format_duration
from proxy.policy import PER_OBJECT, CanaryBy, MinConfidence, Mode, SeverityFloor


class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    LOGFMT = "logfmt"
    JSON = "json"
    CONSOLE = "console"


class Canary(Section):
    """Which share of the alerts takes part; the others are forwarded as they are. What was decided stays."""

    percent: Percent = setting(default=100.0, description="How many of a hundred take part, of those that match.")
    by: CanaryBy = setting(
        default=CanaryBy.ALERTNAME,
        description="What is drawn: all alerts of a name together, or each alert by itself. Always the same ones.",
    )
    matchers: tuple[Matchers, ...] = setting(
        default=(), description="Only alerts for which all matchers of one entry hold take part. Empty: any."
    )


class Enrichment(Section):
    """What is added to which alerts."""

    mode: Mode = setting(
        default=Mode.TRANSPARENT,
        description="`transparent` forwards the same bytes, `transparent_with_recommendations` adds annotations, "
        "`enriched` adds labels too.",
    )
    budget: Duration = setting(
        default=timedelta(seconds=3),
        description="The longest a POST waits for the model, once for all alerts in it. "
        "Shorter than `alertmanager.timeout`.",
    )
    skip: tuple[Matchers, ...] = setting(
        default=('alertname=~"Watchdog|InfoInhibitor"', 'alertname=~"AlertmanagerAIProxy.*"'),
        description="Alerts that are forwarded as they are. An alert is skipped when all matchers of one entry hold. "
        "The default leaves out alerts that are only signals, and the proxy's own.",
    )
    severity_floor: SeverityFloor = setting(
        default=SeverityFloor.CRITICAL,
        description="How far the model may lower the author's severity: `critical` keeps authored criticals "
        "critical, `author` never goes below the author, `off` sets no limit.",
    )
    severity_label: AddedLabel = setting(
        default="ai_severity",
        description="Name of the label that holds the severity. Alerts that fire keep the name they have.",
    )
    category_label: AddedLabel = setting(
        default="ai_category", description="Name of the label that holds the category. As above."
    )
    annotation_prefix: NamePrefix = setting(
        default="ai_", description="What the names of added annotations begin with, as in `ai_summary`."
    )
    former_labels: tuple[AddedLabel, ...] = setting(
        default=(),
        description="Names that the two labels had before they were renamed: firing alerts that carry them are "
        "known again after a restart, and keep them.",
    )
    repost: bool = setting(
        default=True,
        description="Whether text that comes while Alertmanager still gathers the alert's first notification is "
        "posted to it at once. If not, it goes with the next resend.",
    )
    canary: Canary = Canary()


class Storage(Section):
    """Files of the proxy's own."""

    path: Annotated[Path, FileKind()] = setting(
        default=Path("data"), description="Directory of the SQLite files. It is made if it is missing."
    )


class Store(Section):
    """Where decisions about alerts are remembered, beside the memory of this process."""

    url: StoreUrl = setting(
        default="sqlite:",
        description="`sqlite:` is `decisions.db` in `storage.path`, `sqlite:PATH` another file; the class cache is in "
        "`verdicts.db` beside it, and what was spent in `spending.db`. For several proxies: "
        "`redis://HOST:PORT/DB`, `redis+sentinel://HOST:PORT,…/MASTER/DB` or `redis+cluster://HOST:PORT,…`, "
        "each with `rediss` for TLS and `?ssl_ca_certs=FILE` for a CA of your own. `memory:` remembers "
        "nothing over a restart.",
    )
    username: str | None = setting(default=None, description="User of the Redis, if it has one.")
    password: Secret = setting(default=Secret(), description="Password of the Redis.")
    sentinel_username: str | None = setting(default=None, description="User of the Sentinels, if they have one.")
    sentinel_password: Secret = setting(default=Secret(), description="Password of the Sentinels.")
    timeout: Duration = setting(
        default=timedelta(milliseconds=100),
        description="How long Redis has for one answer, the making of a connection included. A POST waits for a few of "
        "them at most. No longer than 1s.",
    )
    prefix: NamePrefix = setting(
        default="aiproxy",
        description="What the names of keys in Redis begin with. All proxies in front of one cluster of "
        "Alertmanagers share one, and no others.",
    )
    max_decisions: Annotated[int, Between(1000, 5_000_000)] = setting(
        default=200_000,
        description="How many alerts may live at once that something is known about, 1 kB of memory each. Beyond "
        "it new alerts go bare.",
    )


class Redact(Section):
    """What is masked in that which leaves: [the whole list](prompt.md#masked)."""

    enabled: bool = setting(
        default=True,
        description="Whether secrets and addresses leave as placeholders, such as `SECRET_1` and `IP_1`. If not, all "
        "that is shown leaves as it is.",
    )
    patterns: tuple[Regex, ...] = setting(
        default=(),
        description="What else is masked. Of an expression with a group only what the first group holds: "
        r"`customer=(\w+)`.",
    )
    hosts: bool = setting(default=False, description="Whether host names (`db-7.eu.example.com`) are masked, too.")


class CircuitBreaker(Section):
    """When a model is not asked for a while because it fails, each of `llm.fallbacks` by itself. Meanwhile the next one
    is asked, or the rules decide at once. Failures are: no connection, no answer in time, rate limits, errors of the
    provider, and refusals. Refused alerts of one name count once, so that a content filter stops one alert and a
    wrong key all."""

    enabled: bool = setting(default=True, description="Whether failures ever stop it. If not, every call is tried.")
    max_failures: Annotated[int, Between(1, 1000)] = setting(
        default=5,
        description="Failures in a row that stop it. More than `llm.concurrency`, so that the calls of one moment, "
        "lost together, do not; with 4 calls of 30s at once a provider that hangs is found out after a minute at most.",
    )
    failure_rate: Annotated[int, Between(1, 100)] = setting(
        default=50, description="Share of the last calls, in percent, that stops it when they fail, in a row or not."
    )
    slow_rate: Annotated[int, Between(1, 100)] = setting(
        default=80, description="Share of the last calls, in percent, that stops it when they are slow."
    )
    slow_call: Duration | None = setting(
        default=None,
        description="A call that takes longer is slow, even if it succeeds. Without it none is: text that comes after "
        "`enrichment.budget` is still worth having, and a local model that needs 10s would be shut off, or its alerts "
        "go to the next model, which may be somebody else's. Where the next one is faster the budget is a good value.",
    )
    min_calls: Annotated[int, Between(1, 1000)] = setting(
        default=10, description="Calls before there are shares. The last calls are twice as many."
    )
    reset_timeout: Duration = setting(
        default=timedelta(seconds=30),
        description="How long it is not asked. Then one call tries; if it fails, or is slow, twice as long, up to 5m.",
    )


class Llm(Section):
    """The model that is asked."""

    enabled: bool = setting(default=False, description="Whether a model is asked. If not, the rules alone decide.")
    provider: str = setting(
        default="openai",
        description="`openai`, `anthropic`, `gemini`, `ollama`, or any other provider LiteLLM knows. `classifier`: "
        "one of your own.",
    )
    model: str = setting(
        default="gpt-4o",
        description="The model's name, as the provider spells it. For `classifier`: the classifier's name, and behind "
        "a slash what it is to be told.",
    )
    api_key: Annotated[Secret, SecretKind(needed=False, is_token=True)] = setting(
        default=Secret(), description="The provider's API key. Needed unless the provider takes none."
    )
    base_url: ModelUrl | None = setting(
        default=None, description="Where the provider's API is, when not at its usual address."
    )
    timeout: Duration = setting(
        default=timedelta(seconds=30), description="Time the model has to answer, retries included."
    )
    max_retries: Annotated[int, Between(0, 10)] = setting(
        default=3, description="How often a call is tried again after an error that may pass."
    )
    enable_cache: bool = setting(
        default=True,
        description="Whether alerts of a class share one answer. If not, what was decided about an alert stays "
        "all the same.",
    )
    cache_ttl: Duration = setting(default=timedelta(hours=24), description="How long the answer for a class is used.")
    object_labels: tuple[LabelName, ...] = setting(
        default=PER_OBJECT,
        description="Labels that only tell one object from the next of its kind. Alerts that differ in nothing else "
        "are of one class.",
    )
    min_confidence: MinConfidence = setting(
        default=MinConfidence.LOW,
        description="How sure a model must be of its answer, in its own words, for its labels to be used. Below, the "
        "labels are the rules', and the text is the model's all the same.",
    )
    enable_fallback: bool = setting(
        default=True,
        description="Whether the rules decide when the model has no answer within the budget. If not, such an alert "
        "is forwarded bare, and stays bare for its life.",
    )
    concurrency: Annotated[int, Between(1, 64)] = setting(default=4, description="How many calls run at once.")
    batch_size: Annotated[int, Between(1, 20)] = setting(
        default=1,
        description="How many alerts of different names may share a call, when several wait. Saves calls, and some "
        "tokens; labels come later, since they are not known before the whole answer is.",
    )
    max_tokens: Annotated[int, Between(50, 4000)] = setting(default=400, description="The longest answer, in tokens.")
    labels: tuple[str, ...] = setting(
        default=("*",), description="Names of the labels that the model is shown. `*`: all of them."
    )
    annotations: tuple[str, ...] = setting(
        default=("summary", "description", "message", "title"),
        description="Names of the annotations that the model is shown. `*`: all of them.",
    )
    prompt_file: Annotated[Path | None, FileKind()] = setting(
        default=None,
        description="A template of your own for what the model is told and shown.",
    )
    context_file: Annotated[Path | None, FileKind()] = setting(
        default=None,
        description="A file of your own with what the model should know: services and what they are, examples of "
        "verdicts, templates for some alerts. [What is in it](prompt.md#context-of-your-own) leaves as it is written.",
    )
    stream: bool = setting(
        default=True,
        description="Whether answers are read while they are written, so that labels do not wait for the text. "
        "A model whose streams break off twice in a row is asked without for 10 minutes at a time, until one comes to "
        "its end; a warning says so.",
    )
    fallbacks: tuple[Model, ...] = setting(
        default=(),
        description="Models that are asked in this order when those before fail or are being left alone, each as "
        "`PROVIDER/MODEL` or `PROVIDER/MODEL@BASE_URL`. All share `llm.timeout`: with one fallback a model "
        "that hangs is given up after half of it. One of `llm.provider` gets `llm.api_key`, and `llm.base_url` if it "
        "names no other address. The key of another provider comes from the variable that LiteLLM reads for it: "
        "`OPENAI_API_KEY`, `ANTHROPIC_API_KEY`, `GEMINI_API_KEY`, …; an `openai/…@BASE_URL` then gets no key. One that "
        "lacks its key is never asked, and an error at the start names the variable. Alerts go to all of these.",
    )
    prices: tuple[Price, ...] = setting(
        default=(),
        description="What a model takes for a million tokens, of the prompt and of the answer, in US dollars: "
        "`MODEL=INPUT/OUTPUT`, or `PROVIDER/MODEL=…` where two providers have one of the name. For models that are not "
        "on LiteLLM's list, and those that cost you something else.",
    )
    circuit_breaker: CircuitBreaker = CircuitBreaker()
    redact: Redact = Redact()
    budget: Budget = Budget()

    @property
    def models(self) -> tuple[ModelName, ...]:
        """All models, in the order in which they are asked; where a fallback gets its address from is settled."""
        first = ModelName(self.provider, self.model, self.base_url)
        # One that shares the key shares the address too: a key for a server of one's own is not for the provider.
        inherited = {first.door: self.base_url}
        return first, *(replace(one, base_url=one.base_url or inherited.get(one.door)) for one in self.fallbacks)


class Log(Section):
    """What the proxy says about itself, on standard error."""

    level: LogLevel = setting(default=LogLevel.INFO, description="The least serious events that are logged.")
    format: LogFormat = setting(default=LogFormat.LOGFMT, description="`console` is for people, with colours.")


CALL: Final = re.compile(r"/(chat/completions|completions|messages|api/chat|api/generate)$")
"""What an address must not end in to which the paths of a provider's calls are added."""


class Settings(Section):
    web: Web = Web()
    alertmanager: Alertmanager = Alertmanager()
    enrichment: Enrichment = Enrichment()
    storage: Storage = Storage()
    store: Store = Store()
    llm: Llm = Llm()
    rules: Rules = Rules()
    log: Log = Log()

    def conflicts(self) -> Iterator[Remark]:
        """Yield what makes values unusable together that are fine alone."""
        budget, timeout = self.enrichment.budget, self.alertmanager.timeout
        if budget >= timeout:
            yield Remark(
                ("enrichment.budget", "alertmanager.timeout"),
                f"enrichment.budget ({format_duration(budget)}) must be shorter than alertmanager.timeout "
                f"({format_duration(timeout)}), or no time is left to forward the alert",
            )
        yield from self.alertmanager.unusable(self.web.listen_address)
        if self.store.timeout > timedelta(seconds=1):
            yield Remark(
                ("store.timeout",),
                f"store.timeout ({format_duration(self.store.timeout)}) is longer than 1s: alerts would wait for "
                "a Redis that is away; want for example 100ms",
            )
        auth = self.alertmanager.basic_auth
        if self.alertmanager.authorization.credentials and (auth.username or auth.password):
            yield Remark(
                ("alertmanager.authorization.credentials", "alertmanager.basic_auth.username"),
                "alertmanager.authorization and alertmanager.basic_auth are both set, leave one out",
            )
        open_to_all = not (self.web.listen_address.is_loopback or self.web.allow_anonymous or self.web.config.file)
        if self.alertmanager.has_credentials and open_to_all:  # a file may be open to all as well: app/doors.py
            yield Remark(
                ("web.listen_address", "alertmanager.basic_auth.username", "alertmanager.authorization.credentials"),
                f"whoever reaches web.listen_address ({self.web.listen_address}) could use the proxy's credentials for "
                "Alertmanager; want 127.0.0.1, or users or certificates of clients in web.config.file, or "
                "web.allow_anonymous where the network keeps others out",
            )
        if self.enrichment.severity_label == self.enrichment.category_label:
            yield Remark(
                ("enrichment.severity_label", "enrichment.category_label"),
                "enrichment.severity_label and enrichment.category_label are both "
                f"{self.enrichment.severity_label!r}, give them different names",
            )

        call = self.llm.provider != "classifier" and CALL.search(self.llm.base_url or "")
        if call:
            yield Remark(
                ("llm.base_url",),
                f"llm.base_url ends in {call[0]}, which is added to it with each call: leave it out",
            )
        if why := doubled_prices(self.llm.prices):
            yield Remark(("llm.prices",), why)
        models = self.llm.models
        for twice in sorted({str(one) for n, one in enumerate(models) if one in models[:n]}):
            yield Remark(
                ("llm.fallbacks", "llm.model"), f"{twice} would be asked twice, leave it out of llm.fallbacks once"
            )

    def cautions(self) -> Iterator[Remark]:
        """Yield what is allowed and yet worth a warning."""
        timeout = self.alertmanager.timeout
        if timeout >= timedelta(seconds=10):
            yield Remark(
                ("alertmanager.timeout",),
                f"alertmanager.timeout ({format_duration(timeout)}) should be below 10s: Prometheus gives up by then "
                "unless told otherwise, and drops what it cannot send",
            )
        if self.web.idle_timeout <= timedelta(minutes=5):
            yield Remark(
                ("web.idle_timeout",),
                f"web.idle_timeout ({format_duration(self.web.idle_timeout)}) should be more than 5m: a POST that "
                "meets the closing of its connection is lost, and Prometheus pauses for minutes between two",
            )
        if self.alertmanager.tls_config.insecure_skip_verify:
            yield Remark(
                ("alertmanager.tls_config.insecure_skip_verify",),
                "alertmanager.tls_config.insecure_skip_verify: whoever is in between can read alerts, and drop them",
            )
        auth = self.alertmanager.basic_auth
        if bool(auth.password) is not bool(auth.username):
            yield Remark(
                ("alertmanager.basic_auth.password", "alertmanager.basic_auth.username"),
                "alertmanager.basic_auth has a user without a password, or the reverse: Alertmanager will refuse the "
                "proxy's own questions",
            )
        if self.alertmanager.replicas > 1 and not self.store.url.startswith("redis"):
            yield Remark(
                ("alertmanager.replicas", "store.url"),
                f"alertmanager.replicas is {self.alertmanager.replicas}, and store.url ({self.store.url}) is not "
                "shared: all labels will be the rules', and the mode cannot be switched at run time; want redis://…",
            )
        failures = self.llm.circuit_breaker.max_failures
        if failures <= self.llm.concurrency:
            yield Remark(
                ("llm.circuit_breaker.max_failures", "llm.concurrency"),
                f"llm.circuit_breaker.max_failures ({failures}) should be more than llm.concurrency "
                f"({self.llm.concurrency}): the calls of one moment, lost together, stop the model",
            )
        if why := per_proxy(self.llm.budget, self.store.url, self.alertmanager.replicas):
            yield Remark(("llm.budget.usd_per_day", "llm.budget.tokens_per_day", "store.url"), why)
        if why := too_small(self.llm.budget, self.llm.max_tokens):
            yield Remark(("llm.budget.tokens_per_day",), why)
        if self.llm.batch_size > 1 and any(one.provider == "classifier" for one in self.llm.models):
            yield Remark(
                ("llm.batch_size", "llm.provider", "llm.fallbacks"),
                "llm.batch_size has no effect: a classifier of your own is asked about one alert at a time",
            )
        slow = self.llm.circuit_breaker.slow_call
        if slow is not None and slow >= self.llm.timeout:
            yield Remark(
                ("llm.circuit_breaker.slow_call", "llm.timeout"),
                f"llm.circuit_breaker.slow_call ({format_duration(slow)}) is not shorter than llm.timeout "
                f"({format_duration(self.llm.timeout)}): no call will be slow",
            )
