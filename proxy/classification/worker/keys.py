"""Which providers cannot be asked without a key; known before LiteLLM is loaded, so that the start can say so."""

from __future__ import annotations

from typing import Final

_HOSTED: Final = frozenset({
    "anthropic", "azure", "cerebras", "cohere", "deepseek", "fireworks_ai", "gemini", "groq", "mistral", "openai",
    "openrouter", "perplexity", "replicate", "together_ai", "xai",
})  # fmt: skip


def needs_key(provider: str, base_url: str | None) -> bool:
    """Return whether `provider` is known to refuse whoever brings no key.

    An OpenAI-compatible server of one's own often takes none, so a `base_url` of another host is given the benefit of
    the doubt. Providers that are not in the list (Bedrock and Vertex read the cloud's own credentials) are asked.
    """
    if provider == "openai" and base_url is not None:
        return "api.openai.com" in base_url
    return provider in _HOSTED
