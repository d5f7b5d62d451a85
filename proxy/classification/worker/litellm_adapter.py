"""The provider behind LiteLLM. Runs in the worker: importing this module imports LiteLLM, for seconds.

Out go the messages, the key, and nothing about this installation. Exceptions of LiteLLM and of what it stands on end
here. Their messages may repeat the prompt or the key, so only their class and HTTP status get further.
"""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import urlsplit

# Read when LiteLLM is imported. It would fetch two files from the network, and read `.env` files on the way up to /.
os.environ.update(
    LITELLM_LOCAL_MODEL_COST_MAP="True", LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS="True", LITELLM_MODE="PRODUCTION"
)

import litellm
from litellm import exceptions as theirs

from proxy.classification import answers
from proxy.classification.worker.asking import CompletionFailed, Messages
from proxy.classification.worker.protocol import Configure
from proxy.errors import (
    ClassifierError,
    ClassifierInvalidAnswer,
    ClassifierRateLimited,
    ClassifierRejected,
    ClassifierTimeout,
    ClassifierUnavailable,
    ClassifierUnusable,
)

VERSION: Final[str] = litellm._version.version

_ANY = range(1000)

# The most specific class first: a Timeout is also an APIConnectionError. The second column bounds the HTTP status,
# which LiteLLM invents where there was none. Whatever is not here is refused, and so not tried again.
ERRORS: Final[tuple[tuple[type[Exception], range, type[ClassifierError]], ...]] = (
    (theirs.Timeout, _ANY, ClassifierTimeout),
    (theirs.RateLimitError, _ANY, ClassifierRateLimited),
    (theirs.JSONSchemaValidationError, _ANY, ClassifierInvalidAnswer),
    (theirs.BadRequestError, range(422, 423), ClassifierUnavailable),  # so it calls Gemini's broken JSON
    (theirs.InternalServerError, _ANY, ClassifierUnavailable),
    (theirs.ServiceUnavailableError, _ANY, ClassifierUnavailable),
    (theirs.BadGatewayError, _ANY, ClassifierUnavailable),
    (theirs.APIConnectionError, _ANY, ClassifierUnavailable),
    (theirs.APIError, range(500, 600), ClassifierUnavailable),
)

# What providers say to a parameter they do not know, and the status with it. Compared by exact class: the other kinds
# of BadRequestError (too long a prompt, content refused, not paid) would fare no better without a schema.
_SCHEMA_REFUSED = (
    (theirs.BadRequestError, 400),
    (theirs.UnsupportedParamsError, 400),
    (theirs.UnprocessableEntityError, 422),
)

_RESPONSE_FORMAT = {
    "type": "json_schema",
    "json_schema": {"name": "verdict", "strict": True, "schema": answers.SCHEMA},
}


class LiteLLM:
    """Satisfies `asking.Completion`."""

    def __init__(self, config: Configure) -> None:
        """Raise ClassifierUnusable, saying why, when LiteLLM does not know the provider."""
        litellm.suppress_debug_info = True
        litellm.telemetry = False
        for name in ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy"):
            logger = logging.getLogger(name)
            logger.handlers.clear()
            logger.setLevel(logging.WARNING)

        model = model_name(config.provider, config.model)
        try:
            litellm.get_llm_provider(model)
        except theirs.BadRequestError:
            raise ClassifierUnusable(f"LiteLLM knows no provider {config.provider!r}") from None
        base = api_base(config.provider, config.base_url)
        self._arguments: dict[str, Any] = {
            "model": model,
            "api_base": base,
            # Without one, a server of the user's own would be sent the OPENAI_API_KEY of the environment.
            "api_key": config.api_key or ("none" if base and config.provider == "openai" else None),
            "max_tokens": config.max_tokens,
            "temperature": 0,
            # We do our own: LiteLLM's differ from provider to provider.
            "max_retries": 0,
            "num_retries": 0,
            "drop_params": True,
            "stream": False,
        }
        if effort := reasoning_effort(config.provider, config.model):
            self._arguments["reasoning_effort"] = effort

    async def __call__(self, messages: Messages, *, schema: bool, seconds: float) -> str:
        """Return what the model says to `messages`, empty when it says nothing.

        `seconds` bounds each wait on the wire, not the call. Raises CompletionFailed.
        """
        shape = {"response_format": _RESPONSE_FORMAT} if schema else {}
        with our_errors():
            # A copy of the messages: some of LiteLLM's providers rewrite them in place.
            chat = [dict(message) for message in messages]
            response = await litellm.acompletion(messages=chat, timeout=seconds, **shape, **self._arguments)
        choices = response.choices
        content = choices[0].message.content if choices else None
        return content if isinstance(content, str) else ""

    async def close(self) -> None:
        """Close the connections. LiteLLM keeps one set of them per process."""
        await litellm.close_litellm_async_clients()


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


@contextmanager
def our_errors() -> Iterator[None]:
    """Turn what LiteLLM raises into CompletionFailed."""
    try:
        yield
    except Exception as exc:  # noqa: BLE001 - this is where a library's errors stop, whatever they are
        status = _status(exc)
        ours = next(
            (ours for kind, statuses, ours in ERRORS if isinstance(exc, kind) and (status or 0) in statuses),
            ClassifierRejected,
        )
        detail = type(exc).__name__ + (f" {status}" if status else "")
        raise CompletionFailed(
            ours(detail),
            retry_after=_retry_after(exc, datetime.now(UTC)),
            schema_refused=(type(exc), status) in _SCHEMA_REFUSED,
        ) from None  # the cause's message may hold the prompt or the key


def _status(exc: Exception) -> int | None:
    try:
        return int(getattr(exc, "status_code", None) or 0) or None
    except (TypeError, ValueError):
        return None


def _retry_after(exc: Exception, now: datetime) -> float | None:
    """Return the seconds the provider wants us to stay away, if it says so; seconds and HTTP dates are understood."""
    response = getattr(exc, "response", None)
    # Anthropic's are in the second place only.
    for headers in (getattr(response, "headers", None), getattr(exc, "litellm_response_headers", None)):
        lowered = {str(k).lower(): v for k, v in headers.items()} if isinstance(headers, Mapping) else {}
        named = lowered.get("retry-after")
        if not isinstance(named, str):
            continue
        try:
            seconds = float(named)
        except ValueError:
            try:
                date = parsedate_to_datetime(named)
            except ValueError:
                continue
            seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now.timestamp()
        if math.isfinite(seconds):
            return max(0.0, seconds)
    return None
