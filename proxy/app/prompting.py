"""The prompts of the settings' choice."""

from __future__ import annotations

from pathlib import Path

from proxy.classification.context_reading import read_context, read_file
from proxy.classification.masking import Masking
from proxy.classification.prompts import Prompts
from proxy.classification.templates import TEXT_LIMIT, Template
from proxy.config import Settings
from proxy.errors import ConfigError


def chosen_prompts(settings: Settings) -> Prompts:
    """Return what makes prompts as configured. What the operator wrote is tried first.

    Raises ConfigError, with the lines of the file that are wrong.
    """
    llm = settings.llm
    prompts = Prompts(
        _template(llm.prompt_file) if llm.prompt_file else None,
        context=read_context(llm.context_file, llm.object_labels) if llm.context_file else None,
        masking=Masking(enabled=llm.redact.enabled, hosts=llm.redact.hosts, patterns=llm.redact.patterns),
        labels=llm.labels,
        annotations=llm.annotations,
        per_object=llm.object_labels,
    )
    if llm.prompt_file or llm.context_file:
        problems = [f"{wrong.name}:{wrong.line}: {wrong}" for wrong in prompts.problems()]
        if problems:
            raise ConfigError(list(dict.fromkeys(problems)))
    return prompts


def _template(path: Path) -> Template:
    return Template(read_file(path, "llm.prompt_file", TEXT_LIMIT), str(path))
