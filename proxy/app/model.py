"""The model of the settings' choice."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import structlog

from proxy.classification.classifier import Classifier
from proxy.classification.worker.keys import needs_key
from proxy.config import Settings
from proxy.telemetry import Metrics

if TYPE_CHECKING:
    from proxy.classification.worker.client import ModelWorker

log = structlog.get_logger(__name__)


class ChosenModel:
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
