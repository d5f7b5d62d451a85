"""The provider behind LiteLLM. Runs in the worker: importing this module imports LiteLLM, for seconds.

Out go the messages, the key, and nothing about this installation. Exceptions of LiteLLM and of what it stands on end
here. Their messages may repeat the prompt or the key, so only their class and HTTP status get further.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, Final

from proxy.classification.worker import providers, wire

os.environ.update(providers.LITELLM_ENVIRONMENT)  # read when LiteLLM is imported

import aiohttp
import litellm
from litellm import exceptions as theirs

from proxy.classification import answers, batches
from proxy.classification.usage import NO_USAGE, Usage
from proxy.classification.worker import keys, providers
from proxy.classification.worker.asking import Completion, CompletionFailed, Form, Messages, Reply
from proxy.classification.worker.protocol import Model
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
_FREE: Final = {
    "litellm_provider": "ollama_chat",
    "mode": "chat",
    "input_cost_per_token": 0,
    "output_cost_per_token": 0,
}

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
    (theirs.APIError, range(200, 300), ClassifierUnavailable),  # an answer, but no model's: a login page
)

# What providers say to a parameter they do not know, and the status with it. Compared by exact class: the other kinds
# of BadRequestError (too long a prompt, content refused, not paid) would fare no better in another form.
_FORM_REFUSED = (
    (theirs.BadRequestError, 400),
    (theirs.UnsupportedParamsError, 400),
    (theirs.UnprocessableEntityError, 422),
)

_NO_CREDIT: Final = "insufficient_quota"
# What an operator is to look at.
_HINTS: Final[Mapping[int | str | None, str]] = {
    401: ", the key is refused: check llm.api_key",
    402: ", the provider wants to be paid",
    403: ", the key is refused, or may not use the model: check llm.api_key and llm.model",
    404: ", no such model or path: check llm.model and llm.base_url",
    _NO_CREDIT: ", no credit is left at the provider",
}

_KEY_LENGTH: Final = 8
"""Characters that a key has at least; something shorter may stand in any text."""

# Whose handlers keep to themselves, and are handed a client in place of the session.
_WITH_CLIENT: Final = frozenset({"anthropic", "gemini", "ollama", "ollama_chat"})


@asynccontextmanager
async def connections() -> AsyncIterator[aiohttp.ClientSession]:
    """Yield what `LiteLLM` sends through; LiteLLM is told once to be quiet, and closed in the end."""
    litellm.suppress_debug_info = True
    litellm.telemetry = False
    for name in ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.setLevel(logging.WARNING)
    async with wire.connections() as session:
        try:
            yield session
        finally:
            await litellm.close_litellm_async_clients()


def register(name: str, handler: Any) -> bool:
    """Make a CustomLLM the provider `name`; return whether it can stream. Raises ClassifierUnusable."""
    kind = type(handler)
    streams = kind.astreaming is not litellm.CustomLLM.astreaming
    if kind.acompletion is litellm.CustomLLM.acompletion:
        raise ClassifierUnusable(f"the classifier {name!r} is a CustomLLM without acompletion")
    if any(known["provider"] == name for known in litellm.custom_provider_map):
        return streams  # asked for two models
    if name in {getattr(known, "value", known) for known in litellm.provider_list}:
        raise ClassifierUnusable(f"LiteLLM has a provider {name!r} of its own; give the classifier another name")
    litellm.custom_provider_map.append({"provider": name, "custom_handler": handler})
    return streams


class LiteLLM:
    """One model. Satisfies `asking.Completion`, for questions about one alert."""

    def __init__(self, chosen: Model, max_tokens: int, session: aiohttp.ClientSession) -> None:
        """Raise ClassifierUnusable, saying why, when LiteLLM does not know the provider, or has no key for it."""
        model = providers.model_name(chosen.provider, chosen.model)
        try:
            litellm.get_llm_provider(model)
        except theirs.BadRequestError:
            raise ClassifierUnusable(f"LiteLLM knows no provider {chosen.provider!r}") from None
        self.doubt = ""
        """What seems to be missing."""
        if not chosen.api_key and (names := keys.missing_key(chosen.provider, chosen.base_url, os.environ)):
            if keys.refuses_for_sure(chosen.provider, chosen.base_url):
                raise ClassifierUnusable(f"no API key; set {names}")
            self.doubt = f"no API key in {names}"
        if model.startswith("ollama"):
            # Else LiteLLM asks the Ollama of this machine for it, after each call, and stands still meanwhile.
            litellm.model_cost.setdefault(model, dict(_FREE))
        base = providers.api_base(chosen.provider, chosen.base_url)
        self._model = model
        given = (chosen.api_key, *(os.environ.get(name, "") for name in keys.VARIABLES.get(chosen.provider, ())))
        self._keys = tuple(key for key in given if len(key) >= _KEY_LENGTH)
        self._price = chosen.price
        self._max_tokens = max_tokens
        self._arguments: dict[str, Any] = {
            "model": model,
            "api_base": base,
            # Without one, a server of the user's own would be sent the OPENAI_API_KEY of the environment.
            "api_key": chosen.api_key or ("none" if base and chosen.provider == "openai" else None),
            "temperature": 0,
            # We do our own: LiteLLM's differ from provider to provider.
            "max_retries": 0,
            "num_retries": 0,
            "drop_params": True,
            "shared_session": session,
        }
        if chosen.provider in _WITH_CLIENT:
            from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler

            self._arguments["client"] = AsyncHTTPHandler(shared_session=session)
        if effort := providers.reasoning_effort(chosen.provider, chosen.model):
            self._arguments["reasoning_effort"] = effort

    async def __call__(
        self, messages: Messages, *, form: Form, seconds: float, heard: Callable[[str], None] | None
    ) -> Reply:
        """Return what the model says to `messages`. Raises CompletionFailed. See `asking.Completion`."""
        return await self._complete(_ONE, self._max_tokens, messages, form=form, seconds=seconds, heard=heard)

    def together(self, alerts: int) -> Completion:
        """Return what asks about so many alerts at once, whose answer may be longer."""
        max_tokens = batches.max_tokens(alerts, self._max_tokens)
        return partial(self._complete, _schema("verdicts", batches.schema(alerts)), max_tokens)

    async def _complete(
        self,
        schema: Mapping[str, Any],
        max_tokens: int,
        messages: Messages,
        *,
        form: Form,
        seconds: float,
        heard: Callable[[str], None] | None,
    ) -> Reply:
        arguments: dict[str, Any] = {
            **self._arguments,
            **_response_format(form, schema),
            "max_tokens": max_tokens,
            # A copy of the messages: some of LiteLLM's providers rewrite them in place.
            "messages": [dict(message) for message in messages],
            "timeout": seconds,
            "stream": heard is not None,
        }
        if heard is not None:
            arguments["stream_options"] = {"include_usage": True}  # LiteLLM drops it where it is not known
        with wire.exchange() as exchange, our_errors(exchange):
            response = await litellm.acompletion(**arguments)
            if heard is not None:
                return await self._streamed(response, heard)
        choices = response.choices
        content = choices[0].message.content if choices else None
        text = self._without_keys(content) if isinstance(content, str) else ""
        return Reply(text, self._usage(getattr(response, "usage", None)))

    async def _streamed(self, stream: Any, heard: Callable[[str], None]) -> Reply:
        text, usage, begun = "", None, False
        try:
            async for chunk in stream:
                begun = True
                usage = getattr(chunk, "usage", None) or usage
                piece = chunk.choices[0].delta.content if chunk.choices else None
                if isinstance(piece, str) and piece:
                    text += piece
                    heard(text)
                if len(text) >= answers.TEXT_LIMIT:
                    return Reply(self._without_keys(text))
        except Exception as exc:
            if begun:
                raise _BrokenStream from exc
            raise
        # Where the provider counts nothing, LiteLLM guesses.
        counted = any(getattr(chunk, "usage", None) is not None for chunk in stream.chunks)
        used = self._usage(usage if counted else None)
        if not text:  # so ends a stream that LiteLLM cannot read, as well as one with nothing in it
            raise CompletionFailed(ClassifierUnavailable("an empty stream"), stream_broken=True, usage=used)
        return Reply(self._without_keys(text), used)

    def _without_keys(self, text: str) -> str:
        """Return a provider's words without the key that it was shown: they go to people, and into stores."""
        for key in self._keys:
            text = text.replace(key, "[masked]")
        return text

    def _usage(self, counted: Any) -> Usage:
        """Return what the provider has counted, and what LiteLLM's prices make of it."""
        prompt = _tokens(getattr(counted, "prompt_tokens", None))
        completion = _tokens(getattr(counted, "completion_tokens", None))
        if prompt is None:  # there was one, so nothing was counted
            return NO_USAGE
        if self._price is not None:
            input_price, output_price = self._price
            return Usage(0, prompt, completion, (prompt * input_price + (completion or 0) * output_price) / 1e6)
        try:
            cost: float = sum(
                litellm.cost_per_token(
                    model=self._model, prompt_tokens=prompt, completion_tokens=completion or 0, usage_object=counted
                )
            )
        except Exception:  # noqa: BLE001 - models without a price raise, and whatever else: a price is not worth a verdict
            return Usage(0, prompt, completion)
        return Usage(0, prompt, completion, cost if math.isfinite(cost) and cost >= 0 else None)


def _schema(name: str, schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the schema as providers want it who keep an answer to it."""
    return {"type": "json_schema", "json_schema": {"name": name, "strict": True, "schema": schema}}


_ONE: Final = _schema("verdict", answers.SCHEMA)


def _response_format(form: Form, schema: Mapping[str, Any]) -> Mapping[str, object]:
    formats: Mapping[Form, Mapping[str, object]] = {
        Form.SCHEMA: {"response_format": schema},
        Form.OBJECT: {"response_format": {"type": "json_object"}},
        Form.TEXT: {},
    }
    return formats[form]


def _tokens(number: object) -> int | None:
    return number if isinstance(number, int) and not isinstance(number, bool) and number > 0 else None


class _BrokenStream(Exception):
    """A stream failed after it had begun; the cause says how."""


@contextmanager
def our_errors(exchange: wire.Exchange | None = None) -> Iterator[None]:
    """Turn what LiteLLM raises into CompletionFailed; `exchange` knows what LiteLLM cannot say."""
    try:
        yield
    except CompletionFailed:
        raise
    except Exception as raised:  # noqa: BLE001 - this is where a library's errors stop, whatever they are
        if exchange is not None and exchange.too_long:
            raise CompletionFailed(ClassifierInvalidAnswer("an answer without end")) from None
        if exchange is not None and exchange.redirect:
            error = f"a redirect ({exchange.redirect}), which is not followed: name the address itself in llm.base_url"
            raise CompletionFailed(ClassifierRejected(error)) from None
        if exchange is not None and exchange.unreachable:
            error = f"no connection, {exchange.unreachable}: check llm.base_url"
            raise CompletionFailed(ClassifierUnavailable(error)) from None
        exc: BaseException = raised
        if isinstance(raised, _BrokenStream) and raised.__cause__ is not None:
            exc = raised.__cause__
        # LiteLLM wraps what it finds in a stream, and what opens one late (Gemini's), for a router of its own.
        exc = getattr(exc, "original_exception", None) or exc
        status = _status(exc)
        ours = next(
            (ours for kind, statuses, ours in ERRORS if isinstance(exc, kind) and (status or 0) in statuses),
            ClassifierRejected,
        )
        detail = type(exc).__name__ + (f" {status}" if status else "") + _HINTS.get(_hinting(exc, status), "")
        raise CompletionFailed(
            ours(detail),
            retry_after=_retry_after(exc, datetime.now(UTC)),
            form_refused=(type(exc), status) in _FORM_REFUSED,
            stream_broken=isinstance(raised, _BrokenStream),
        ) from None  # the cause's message may hold the prompt or the key


def _hinting(exc: BaseException, status: int | None) -> int | str | None:
    """Return what _HINTS may know. Of a provider's words that one alone is looked at which is always the same."""
    said = f"{getattr(exc, 'message', '')} {getattr(exc, 'body', '')}"  # not str(exc), which may fail
    return _NO_CREDIT if _NO_CREDIT in said else status


def _status(exc: BaseException) -> int | None:
    try:
        return int(getattr(exc, "status_code", None) or 0) or None
    except (TypeError, ValueError):
        return None


def _retry_after(exc: BaseException, now: datetime) -> float | None:
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
            except (ValueError, OverflowError):
                continue
            seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now.timestamp()
        if math.isfinite(seconds):
            return max(0.0, seconds)
    return None
