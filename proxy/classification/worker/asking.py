"""One question to a model, asked as often as it takes within one deadline. Runs in the worker.

Three things lead to another request. They share the deadline, and nothing else:

- a failure that may pass: after an exponential wait with full jitter, or after the provider's Retry-After;
- a refusal of the JSON schema: at once without it (the prompt asks for an object anyway), and from then on so;
- an answer that is no verdict: once more, saying so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Mapping, Sequence
from typing import Protocol

import backoff

from proxy.classification import answers
from proxy.classification.classification import Classification
from proxy.errors import ClassifierError, ClassifierInvalidAnswer, ClassifierTimeout

Messages = Sequence[Mapping[str, str]]

# The longest wait before the second request and before any later one, in seconds.
_FIRST_WAIT = 0.5
_LONGEST_WAIT = 8.0

_REMINDER = "That was not the JSON object asked for. Answer again, with that one object and nothing else."


class CompletionFailed(Exception):
    """A provider gave no answer."""

    def __init__(
        self, error: ClassifierError, *, retry_after: float | None = None, schema_refused: bool = False
    ) -> None:
        super().__init__(str(error))
        self.error = error
        self.retry_after = retry_after
        """Seconds to wait before the next request, when the provider named them."""
        self.schema_refused = schema_refused
        """Whether the same request without a JSON schema may be welcome."""


class Completion(Protocol):
    """One request to a provider. Raises CompletionFailed."""

    async def __call__(self, messages: Messages, *, schema: bool, seconds: float) -> str:
        """Return the model's words; `seconds` bounds the silence on the wire, not the call."""
        ...


class Asker:
    def __init__(self, complete: Completion, *, model: str, max_retries: int) -> None:
        """`model` is the name the verdicts carry."""
        self._complete = complete
        self._model = model
        self._max_retries = max_retries
        self._schema = True

    async def ask(self, messages: Messages, seconds: float) -> Classification:
        """Return the model's verdict within `seconds`, or raise ClassifierError."""
        try:
            async with asyncio.timeout(seconds):
                return await self._verdict(messages, asyncio.get_running_loop().time() + seconds)
        except TimeoutError:
            raise ClassifierTimeout("no answer in time") from None
        except CompletionFailed as failed:
            raise failed.error from None

    async def _verdict(self, messages: Messages, ends: float) -> Classification:
        text = await self._text(messages, ends)
        try:
            return answers.parse(text, self._model)
        except ClassifierInvalidAnswer:
            said = {"role": "assistant", "content": text or "(nothing)"}  # providers refuse empty messages
            again = [*messages, said, {"role": "user", "content": _REMINDER}]
            return answers.parse(await self._text(again, ends), self._model)

    async def _text(self, messages: Messages, ends: float) -> str:
        # No logger: backoff would log the arguments, which hold the prompt. No jitter: `_waits` has its own.
        persistent = backoff.on_exception(
            _waits,  # type: ignore[arg-type] # backoff's type has no room for what it sends in, the failure
            CompletionFailed,
            max_tries=1 + self._max_retries,
            giveup=_final,
            jitter=None,
            logger=None,
            ends=ends,
        )(self._once)
        return await persistent(messages, ends)

    async def _once(self, messages: Messages, ends: float) -> str:
        seconds = ends - asyncio.get_running_loop().time()
        with_schema = self._schema
        try:
            text = await self._complete(messages, schema=with_schema, seconds=seconds)
        except CompletionFailed as failed:
            if not (with_schema and failed.schema_refused):
                raise
            text = await self._complete(messages, schema=False, seconds=seconds)
            self._schema = False  # only now: it might have been the request that was refused, not its schema
        return text[: answers.TEXT_LIMIT]


def _final(failed: Exception) -> bool:
    return not (isinstance(failed, CompletionFailed) and failed.error.retryable)


def _waits(ends: float) -> Generator[float, CompletionFailed, None]:
    """Yield the seconds to wait after each failure that is sent in; end when the wait leaves no time for a request."""
    # backoff starts a generator with an empty send before it sends the first failure.
    failed = yield 0.0
    longest = _FIRST_WAIT
    while True:
        wait = backoff.full_jitter(longest) if failed.retry_after is None else failed.retry_after
        if asyncio.get_running_loop().time() + wait >= ends:
            return
        failed = yield wait
        longest = min(longest * 2, _LONGEST_WAIT)
