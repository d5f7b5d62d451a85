"""The interface for classifiers of one's own. Public: what stands here changes only with INTERFACE.

A distribution that is installed beside the proxy brings a classifier by an entry point:

    [project.entry-points."alertmanager_ai_proxy.classifiers"]
    runbooks = "runbooks:Runbooks"

`llm.provider: classifier` and `llm.model: runbooks` choose it, and so does `classifier/runbooks` in `llm.fallbacks`. It
is made and asked in the model worker, a process of its own. docs/reference/classifiers.md says what it may rely on.

This module imports nothing of the proxy, and needs nothing but Python.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

INTERFACE: Final = 1
"""The version of this interface: one more when what worked before does not work any more."""

GROUP: Final = "alertmanager_ai_proxy.classifiers"
"""The group of the entry points."""

PROVIDER: Final = "classifier"
"""What `llm.provider` says for all of them."""

SEVERITIES: Final = ("critical", "warning", "info", "noise")
"""All there are, the most urgent first."""

CATEGORIES: Final = (
    "availability", "capacity", "performance", "errors", "network", "storage", "security", "configuration", "other",
)  # fmt: skip
"""All there are."""

CONFIDENCES: Final = ("low", "medium", "high")
"""All there are, the least sure first."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What the settings say. A classifier is made with it, once for each time that it is chosen."""

    name: str
    """Of the entry point."""
    model: str = ""
    """What stands behind the name in `llm.model`: `small` in `runbooks/small`. Empty when nothing does."""
    api_key: str = field(default="", repr=False)
    """`llm.api_key`; empty when there is none."""
    base_url: str | None = None
    """`llm.base_url`, or what stands behind the @ in `llm.fallbacks`; None when there is none."""


@dataclass(frozen=True, slots=True)
class Request:
    """A question about one class of alerts: one of them, as far as it may leave, and masked as for any provider."""

    labels: Mapping[str, str] = field(repr=False)
    """Those that `llm.labels` allows."""
    annotations: Mapping[str, str] = field(repr=False)
    """Those that `llm.annotations` allows."""
    messages: Sequence[Mapping[str, str]] = field(repr=False)
    """The prompt for the same alert, for a classifier that asks a language model: `role` and `content` of each."""
    seconds: float
    """What is left of the time for an answer."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a classifier says."""

    severity: str
    """One of SEVERITIES."""
    category: str
    """One of CATEGORIES."""
    confidence: str
    """One of CONFIDENCES. Below `llm.min_confidence` the labels are the rules'."""
    summary: str = ""
    """One sentence; cut after 160 characters."""
    recommendations: Sequence[str] = ()
    """What to do; three at most count, each cut after 120 characters."""
    input_tokens: int | None = None
    """What a language model was sent, if one was asked and counts."""
    output_tokens: int | None = None
    """What it answered."""
    cost_usd: float | None = None
    """What that cost, if it is known."""


Answer = Verdict | Mapping[str, object] | str
"""A verdict, its members in a mapping, or the text of a language model: the first JSON object in it is looked for."""


class Classifier(Protocol):
    """What the entry point makes when it is called with a Setup.

    `classify` may also be a plain function; it then runs in a thread. A coroutine function `aclose`, if there is one,
    is awaited when the proxy ends in good order, for one second at most.
    """

    def classify(self, request: Request) -> Answer | Awaitable[Answer]:
        """Return the verdict within `request.seconds`, or raise one of the errors below."""
        ...


class ClassifierFailed(Exception):
    """Base of the errors that say what is to be done next. Their text goes nowhere but to `try-classifier`."""


class Unavailable(ClassifierFailed):
    """It cannot answer now: it is tried again, then the next of `llm.fallbacks` is asked. So are TimeoutErrors and
    ConnectionErrors."""


class RateLimited(ClassifierFailed):
    """As above, and not before `retry_after` seconds have passed, if that is known."""

    def __init__(self, text: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class Rejected(ClassifierFailed):
    """It refuses this request and would refuse it again: the next one is asked. So it is after any other exception."""


class Undecided(ClassifierFailed):
    """It works, and has nothing to say about this alert: the next one is asked, and no failure is counted."""
