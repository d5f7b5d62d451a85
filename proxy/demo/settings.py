"""How the demo's proxy is set: its flags, its environment, and in words what came of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any, Final

from proxy import config
from proxy.demo.local_model import LocalModel
from proxy.demo.programs import HOST

_LOCAL_BUDGET: Final = "8s"
_KEYS: Final = ("LLM_API_KEY", "LLM_API_KEY_FILE")


def flags(local: LocalModel | None, environ: Mapping[str, str]) -> list[str]:
    """Return the flags that make the proxy label, asking `local`, else the model of `environ`, else the rules."""
    given = ["--enrichment.mode=enriched", "--store.url=memory:", "--log.format=json", "--log.level=info"]
    if local is not None:
        return [
            *given,
            "--llm.enabled=true",
            "--llm.provider=ollama",
            f"--llm.model={local.name}",
            f"--llm.base-url={local.url}",
            # One question after the other takes it a minute for all alerts; some are answered within the budget, and
            # an answer that comes later serves the next alert of its class.
            f"--enrichment.budget={_LOCAL_BUDGET}",
            "--llm.concurrency=1",
            "--llm.timeout=180s",
            "--llm.max-retries=0",
            "--llm.max-tokens=200",
        ]
    if any(environ.get(name) for name in _KEYS) and not environ.get("LLM_ENABLED"):
        given.append("--llm.enabled=true")
    if not environ.get("LLM_CONCURRENCY"):
        # All alerts of the demo begin at once.
        given += ["--llm.concurrency=12", "--llm.circuit-breaker.max-failures=13"]
    return given


def environment(local: LocalModel | None, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the proxy's environment: `environ`, and of the proxy's settings in it those of the model alone.

    So the demo shows the same wherever it runs, and stays away from a store that is set for work.
    """
    names = {flag.key.upper().replace(".", "_") for flag in config.flags()}
    names |= {f"{name}_FILE" for name in names}
    kept = {
        name: value
        for name, value in environ.items()
        if name not in names or (local is None and name.startswith("LLM_"))
    }
    # Where this package was found, the child finds it.
    kept["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    if local is not None:
        # Not through a proxy for the web.
        kept["NO_PROXY"] = kept["no_proxy"] = HOST
    return kept


def describe(model: Mapping[str, Any], local: LocalModel | None) -> list[str]:
    """Return lines about who gives the verdicts; `model` is what the proxy's status says about it."""
    if not model.get("enabled"):
        return ["Model         none, the rules decide; set LLM_API_KEY and one is asked, or: make demo MODEL=local"]
    if model["state"] != "ready":
        return [
            f"Model         {model['name']}, which is {model['state']}, its key is {model['key']}; the rules decide"
        ]
    remark = "; so small a one shows how it works, not how well models judge" if local else ""
    in_time = f"within {_LOCAL_BUDGET}" if local else "in time"
    return [
        f"Model         {model['name']}{remark}",
        f"Sources       llm: it answered {in_time}; cache: it had answered about such an alert before; rules: neither",
    ]
