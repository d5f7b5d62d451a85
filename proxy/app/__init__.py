"""The composition root: the only reader of the settings and the only importer of adapters."""

from proxy.app.composition import Running, build, serve
from proxy.app.loop import Loop
from proxy.app.prompting import chosen_prompts
from proxy.app.rules import chosen_rules
from proxy.app.spending import unpriced

__all__ = ["Loop", "Running", "build", "chosen_prompts", "chosen_rules", "serve", "unpriced"]
