"""Settings of the rules."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from proxy.config.kinds import FileKind, Section, setting


class Rules(Section):
    """What decides without a model, and where a model has no answer: [tables of rules](rules.md)."""

    file: Annotated[Path | None, FileKind()] = setting(
        default=None,
        description="A table of your own, which is asked before the shipped one. Read at the start and at a reload, "
        "for alerts that are new from then on. `check-config` tests it.",
    )
