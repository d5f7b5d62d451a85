"""What each provider needs to be called through LiteLLM. Pure functions; LiteLLM is not loaded for them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

from proxy.classification.worker.asking import Form

LITELLM_ENVIRONMENT: Final[Mapping[str, str]] = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
    "LITELLM_MODE": "PRODUCTION",
}
"""Must be there when LiteLLM is imported: it would fetch two files from the network, and read `.env` files on the way
up to /."""


def model_name(provider: str, model: str) -> str:
    """Return LiteLLM's name for the model: `provider/model`.

    A model that begins with its provider's name is taken as written, so a server of one's own that serves
    `openai/gpt-oss-20b` is asked for it by `openai/openai/gpt-oss-20b`.
    """
    # ollama_chat/ speaks /api/chat; ollama/ the older /api/generate.
    prefix = "ollama_chat" if provider == "ollama" else provider
    for given in (f"{provider}/", f"{prefix}/"):
        if model.startswith(given):
            return f"{prefix}/{model.removeprefix(given)}"
    return f"{prefix}/{model}"


def api_base(provider: str, base_url: str | None) -> str | None:
    """Return `base_url` as LiteLLM wants it for the provider; None, the provider's own, stays None."""
    if not base_url:
        return None
    url = base_url.rstrip("/")
    has_path = bool(urlsplit(url).path)
    match provider:
        case "openai" if not has_path:
            return f"{url}/v1"
        case "gemini" if not has_path:
            return f"{url}/v1beta"
        case "anthropic":
            return url.removesuffix("/v1")
        case "ollama" | "ollama_chat":
            return url.removesuffix("/v1").removesuffix("/api")
    return url


def reasoning_effort(provider: str, model: str) -> str | None:
    """Return how much the model should think before it answers; None leaves that to it.

    Thinking costs seconds of somebody's page and eats `max_tokens`. Only where little of it is known to be accepted.
    """
    match provider:
        case "ollama" | "ollama_chat":
            return "none"
        case "gemini" if "flash" in model:  # the pro models refuse to go without
            return "none"
        case "openai" if re.fullmatch(r"(openai/)?gpt-5(-mini|-nano)?(-\d{4}-\d\d-\d\d)?", model):
            return "minimal"
    return None


def forms(provider: str) -> Sequence[Form]:
    """Return the ways to ask for an object that differ from each other at this provider, the strictest first."""
    # LiteLLM sends Anthropic nothing for `json_object`: asking so would be asking for text a second time.
    return [form for form in Form if not (provider == "anthropic" and form is Form.OBJECT)]
