"""The prompts of the settings' choice."""

from __future__ import annotations

from pathlib import Path

from proxy.classification.masking import Masking
from proxy.classification.prompts import Prompts
from proxy.classification.templates import Template, TemplateError
from proxy.config import Settings
from proxy.errors import ConfigError


def chosen_prompts(settings: Settings) -> Prompts:
    """Return what makes prompts as configured. A template of the operator's own is tried first.

    Raises ConfigError, with the line of the template that is wrong.
    """
    llm = settings.llm
    prompts = Prompts(
        _template(llm.prompt_file) if llm.prompt_file else None,
        masking=Masking(enabled=llm.redact.enabled, hosts=llm.redact.hosts, patterns=llm.redact.patterns),
        labels=llm.labels,
        annotations=llm.annotations,
        per_object=llm.object_labels,
    )
    if llm.prompt_file:
        try:
            prompts.check()
        except TemplateError as exc:
            raise ConfigError([f"{llm.prompt_file}:{exc.line}: {exc}"]) from None
    return prompts


def _template(path: Path) -> Template:
    try:
        return Template(path.read_text(encoding="utf-8"), str(path))
    except OSError as exc:
        raise ConfigError([f"llm.prompt_file: cannot read {path}: {exc.strerror}"]) from None
    except ValueError:  # not UTF-8; or a path with a zero byte
        raise ConfigError([f"llm.prompt_file: cannot read {path}: it is not text"]) from None
