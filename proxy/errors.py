"""The errors of this product, and what each branch leads to.

ProxyError
├── ConfigError          the start (or the check) ends with exit 1; carries every mistake found, one a line
├── DecodeError          the body is forwarded as it came, Alertmanager judges it
├── StoreError           memory carries on; counted
│   └── StoreTimeout     may be asked once more
├── LookupTimeout        too much to look through; whoever asked gets 503, and asks for less
├── SwitchRefused        the mode stays as it is; whoever asked gets 409
│   └── Superseded       a later switch overtook this one
├── RequestError         the sender's request breaks off or cannot be read; it gets 400, should it still listen
├── UpstreamError        the sender gets 502 or 504; nothing was acknowledged
│   ├── UpstreamTimeout
│   └── UpstreamRefused  Alertmanager answered our own question with a refusal; needs a person
└── ClassifierError      the rules decide; `reason` labels the metric
    ├── ClassifierUnusable       cannot work as configured; needs a person
    ├── ClassifierRejected       the provider refused this request (key, model name, content)
    ├── ClassifierRateLimited    retryable
    ├── ClassifierTimeout        retryable
    ├── ClassifierUnavailable    retryable: provider or worker down
    ├── ClassifierUndecided      a custom classifier that works, and has nothing to say about this alert
    ├── ClassifierOpen           not asked: it failed too often, and gets a rest
    ├── ClassifierOverBudget     not asked: what may be spent by now is spent
    ├── ClassifierBusy           our own queue is full
    └── ClassifierInvalidAnswer  an answer that is no verdict

A library's exceptions stop in the adapter that calls it. Messages never carry a prompt, a key or a model's words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class ProxyError(Exception):
    """Base of everything raised on purpose."""


class ConfigError(ProxyError):
    """The settings cannot be used."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)
        """Each begins with where it stands (`config.yaml:7`, `LLM_TIMEOUT`, `--llm.timeout`) and says what to do."""


class DecodeError(ProxyError):
    """The body of a POST is not an array of alerts as far as we understand it."""


class StoreError(ProxyError):
    """A decision store cannot answer."""


class StoreTimeout(StoreError):
    """A decision store has not answered in time."""


class LookupTimeout(ProxyError):
    """There is too much to look through."""


class SwitchRefused(ProxyError):
    """The mode cannot be switched as things are."""


class Superseded(SwitchRefused):
    """What was asked for was overtaken by a later request."""


class RequestError(ProxyError):
    """A request that has begun to come in cannot be read to its end."""

    status: ClassVar[int] = 400


class UpstreamError(ProxyError):
    """Alertmanager gave no answer."""

    status: ClassVar[int] = 502


class UpstreamTimeout(UpstreamError):
    """Alertmanager gave no answer in time."""

    status = 504


class UpstreamRefused(UpstreamError):
    """Alertmanager does not answer our own question: credentials, or a path."""


class ClassifierError(ProxyError):
    """A classifier has no verdict."""

    reason: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False


class ClassifierUnusable(ClassifierError):
    reason = "unusable"


class ClassifierRejected(ClassifierError):
    reason = "rejected"


class ClassifierRateLimited(ClassifierError):
    reason = "rate_limited"
    retryable = True


class ClassifierTimeout(ClassifierError):
    reason = "timeout"
    retryable = True


class ClassifierUnavailable(ClassifierError):
    reason = "unavailable"
    retryable = True


class ClassifierUndecided(ClassifierError):
    reason = "undecided"


class ClassifierOpen(ClassifierError):
    reason = "breaker_open"


class ClassifierOverBudget(ClassifierError):
    reason = "over_budget"


class ClassifierBusy(ClassifierError):
    reason = "busy"


class ClassifierInvalidAnswer(ClassifierError):
    reason = "invalid_answer"
