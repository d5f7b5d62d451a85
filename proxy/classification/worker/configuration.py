"""What the model worker is to ask, and what it may be doing."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from proxy.classification.worker.protocol import Model


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Which models to ask, and how."""

    models: Sequence[Model]
    """`ModelWorker.classifier` takes their places in here."""
    timeout: timedelta
    """For one call from its turn to its verdict, retries included."""
    max_retries: int
    """Requests after the first, when the failure may pass."""
    max_tokens: int
    """Of one answer."""
    stream: bool
    """Whether answers are streamed, which tells their labels early."""
    withheld: Collection[str]
    """Names of the variables of our environment that are no business of the child's: our own settings."""


class WorkerState(StrEnum):
    """See `client` for the way from one to the other."""

    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    UNUSABLE = "unusable"
