"""Which providers cannot be asked without a key; known before LiteLLM is loaded, so that the start can say so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

VARIABLES: Final[Mapping[str, Sequence[str]]] = {
    "anthropic": ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"),
    "azure": ("AZURE_API_KEY", "AZURE_OPENAI_API_KEY", "AZURE_AD_TOKEN"),
    "cerebras": ("CEREBRAS_API_KEY",),
    "cohere": ("COHERE_API_KEY", "CO_API_KEY"),
    "deepseek": ("DEEPSEEK_API_KEY",),
    "fireworks_ai": ("FIREWORKS_AI_API_KEY", "FIREWORKS_API_KEY", "FIREWORKSAI_API_KEY", "FIREWORKS_AI_TOKEN"),
    "gemini": ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
    "groq": ("GROQ_API_KEY",),
    "mistral": ("MISTRAL_API_KEY", "MISTRAL_AZURE_API_KEY"),
    "openai": ("OPENAI_API_KEY",),
    "openrouter": ("OPENROUTER_API_KEY", "OR_API_KEY"),
    "perplexity": ("PERPLEXITYAI_API_KEY", "PERPLEXITY_API_KEY"),
    "replicate": ("REPLICATE_API_KEY", "REPLICATE_API_TOKEN"),
    "together_ai": ("TOGETHERAI_API_KEY", "TOGETHER_API_KEY", "TOGETHER_AI_API_KEY", "TOGETHER_AI_TOKEN"),
    "xai": ("XAI_API_KEY",),
}
"""For each provider that is known to want a key, where LiteLLM looks for one that it is not given."""

KNOWN: Final = frozenset({
    *VARIABLES, "azure_ai", "bedrock", "codestral", "cohere_chat", "databricks", "deepinfra", "github", "hosted_vllm",
    "huggingface", "llamafile", "lm_studio", "nvidia_nim", "ollama", "ollama_chat", "sagemaker", "sambanova",
    "vertex_ai", "vllm", "watsonx", "zai",
})  # fmt: skip
"""The providers of which a word that is nearly the same is a slip."""


def needs_key(provider: str, base_url: str | None) -> bool:
    """Return whether `provider` is known to refuse whoever brings no key.

    An OpenAI-compatible server of one's own often takes none, so a `base_url` of another host is given the benefit of
    the doubt. Providers that are not in the list (Bedrock and Vertex read the cloud's own credentials) are asked.
    """
    if provider == "openai" and base_url is not None:
        return "api.openai.com" in base_url
    return provider in VARIABLES


def missing_key(provider: str, base_url: str | None, environ: Mapping[str, str]) -> str:
    """Return the variables of `environ` in which LiteLLM looks for a key in vain; empty: it finds one, or needs none.

    As a list for people, the usual one first.
    """
    if not needs_key(provider, base_url) or any(environ.get(name) for name in VARIABLES[provider]):
        return ""
    return " or ".join(VARIABLES[provider])


def refuses_for_sure(provider: str, base_url: str | None) -> bool:
    """Return whether nothing else than a key can open the door of `provider`, which wants one.

    Azure takes the identity of a machine too, and who knows what a server of one's own takes.
    """
    return provider != "azure" and (base_url is None or provider == "openai")
