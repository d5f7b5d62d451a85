"""What asks for verdicts, as the settings want it."""

from __future__ import annotations

from proxy.app.model import ChosenModel
from proxy.app.rules import CurrentRules
from proxy.classification.allowance import WaitingAllowance
from proxy.classification.cache import ClassCache
from proxy.classification.classification import Confidence
from proxy.classification.prompts import Prompts
from proxy.classification.service import ClassificationService
from proxy.config import Settings
from proxy.telemetry import Metrics


def chosen_service(
    settings: Settings,
    rules: CurrentRules,
    prompts: Prompts,
    model: ChosenModel,
    metrics: Metrics,
    *,
    cache: ClassCache | None,
    allowance: WaitingAllowance,
) -> ClassificationService:
    """Return what asks `model`, which is open, and the rules where it says nothing. The caller closes it."""
    llm = settings.llm
    return ClassificationService(
        rules=rules,
        model=model.classifier,
        salt=f"{llm.provider}/{llm.model}@{llm.base_url or ''}/{prompts.version}",
        first_choice=llm.model if llm.fallbacks else "",
        cache=cache,
        allowance=allowance,
        observer=metrics,
        fallback=llm.enable_fallback,
        floor=settings.enrichment.severity_floor,
        min_confidence=Confidence(llm.min_confidence),
        per_object=llm.object_labels,
        on_known=model.savings.saved,
    )
