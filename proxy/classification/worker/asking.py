"""One question to a model, asked as often as it takes within one deadline. Runs in the worker.

Four things lead to another request. They share the deadline, and the first two the retries:

- a failure that may pass: after an exponential wait with full jitter, or after the provider's Retry-After;
- a stream that broke off or brought nothing: the same, and without streaming;
- a refusal of the form in which the answer was asked for: at once in a less strict one (the prompt asks for an object
  anyway), and from then on so;
- an answer that is no verdict: once more, saying so, with the retries that are left.

Labels that were told early hold, whatever becomes of the rest of the answer.

A question about several alerts (see `batches`) is neither streamed nor asked again for an answer that is no verdict:
whoever has none is asked about alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Generator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import backoff

from proxy.classification import answers, batches
from proxy.classification.classification import Classification
from proxy.classification.classifier import Early, unheard
from proxy.classification.usage import NO_USAGE, Usage
from proxy.errors import ClassifierError, ClassifierInvalidAnswer, ClassifierRejected, ClassifierTimeout

Messages = Sequence[Mapping[str, str]]

# The longest wait before the second request and before any later one, in seconds.
_FIRST_WAIT = 0.5
_LONGEST_WAIT = 8.0

# So many broken streams in a row, and there will be no more of them for so many seconds.
_STREAMS_BROKEN = 2
_UNSTREAMED = 600.0

_REMINDER = "That was not the JSON object asked for. Answer again, with that one object and nothing else."


class Form(StrEnum):
    """How a provider is asked to keep to the object, the strictest first."""

    SCHEMA = "json_schema"
    OBJECT = "json_object"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class Reply:
    text: str
    """The model's words; empty when it says nothing."""
    usage: Usage = NO_USAGE
    """Of this one request, which is not counted in it."""


class CompletionFailed(Exception):
    """A provider gave no answer."""

    def __init__(
        self,
        error: ClassifierError,
        *,
        retry_after: float | None = None,
        form_refused: bool = False,
        stream_broken: bool = False,
        usage: Usage = NO_USAGE,
    ) -> None:
        super().__init__(str(error))
        self.error = error
        self.retry_after = retry_after
        """Seconds to wait before the next request, when the provider named them."""
        self.form_refused = form_refused
        """Whether the same request for an answer in a less strict form may be welcome."""
        self.stream_broken = stream_broken
        """Whether an answer began to be streamed and did not come to an end, or ended with nothing said."""
        self.usage = usage


class Completion(Protocol):
    """One request to a provider. Raises CompletionFailed."""

    async def __call__(
        self, messages: Messages, *, form: Form, seconds: float, heard: Callable[[str], None] | None
    ) -> Reply:
        """Return what the model says; `seconds` bounds the silence on the wire, not the call.

        With `heard` the answer is streamed: it is called with all that has arrived, whenever that is more than before.
        """
        ...


@dataclass(slots=True)
class _Forms:
    """What is known about the forms of a provider, for one kind of question."""

    first: int = 0
    """The place of the first one that was not refused."""


@dataclass(slots=True)
class Tally:
    """What a call has used so far, whether or not it comes to an end."""

    usage: Usage = NO_USAGE


class Asker:
    """What is known about one model, and how to ask it."""

    def __init__(
        self,
        complete: Completion,
        *,
        model: str,
        max_retries: int,
        stream: bool = False,
        forms: Sequence[Form] = tuple(Form),
        together: Callable[[int], Completion] | None = None,
        on_streaming: Callable[[bool], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`model` is the name the verdicts carry; `forms` are tried in their order. `together` returns what asks about
        so many alerts at once; None: nothing does.

        `on_streaming` hears False when streaming is given up for a while, and True when it works again; `clock`
        (seconds) times the while.
        """
        self.complete = complete
        self.model = model
        self.max_retries = max_retries
        self.forms = forms
        self._together = together
        self._alone_in, self._together_in = _Forms(), _Forms()
        self.breaks = 0
        """How often streams broke; those that break together count once."""
        self._stream = stream
        self._on_streaming = on_streaming
        self._clock = clock
        self._in_a_row = 0
        self._again_at = 0.0
        """When streaming is tried again, after so many breaks in a row that it was given up."""

    @property
    def streams(self) -> bool:
        """Whether answers are streamed; for a while not, when it went wrong too often."""
        return self._stream and (self._in_a_row < _STREAMS_BROKEN or self._clock() >= self._again_at)

    def stream_ended(self) -> None:
        """Note that a stream came to its end."""
        if self._in_a_row >= _STREAMS_BROKEN:
            self._on_streaming(True)
        self._in_a_row = 0

    def stream_broke(self, breaks: int) -> None:
        """Note that a stream broke which began after `breaks` of them.

        One event may break many at once, such as the restart of a load balancer. It says nothing of the next stream.
        """
        if breaks < self.breaks:
            return
        self.breaks += 1
        self._in_a_row += 1
        if self._in_a_row >= _STREAMS_BROKEN:
            self._again_at = self._clock() + _UNSTREAMED
        if self._in_a_row == _STREAMS_BROKEN:
            self._on_streaming(False)

    async def ask(
        self, messages: Messages, seconds: float, early: Early = unheard, tally: Tally | None = None
    ) -> Classification:
        """Return the model's verdict within `seconds`, or raise ClassifierError. `early` is as the port has it."""
        call = _Call(self, self.complete, self._alone_in, seconds, tally or Tally(), early, streams=self.streams)
        try:
            async with _within(seconds):
                return call.held(await call.verdict(messages))
        except ClassifierError:
            if call.told is not None:
                return call.told
            raise

    async def ask_together(
        self, messages: Messages, names: Sequence[str], seconds: float, tally: Tally | None = None
    ) -> list[Classification | None]:
        """Return the model's verdict on each of the alerts with these `names`, None for one without, within `seconds`.

        Raises ClassifierError.
        """
        if self._together is None:
            raise ClassifierRejected("it is asked about one alert at a time")
        call = _Call(self, self._together(len(names)), self._together_in, seconds, tally or Tally())
        async with _within(seconds):
            text = await call.text(messages)
        return [self._checked(members) for members in batches.parse(text, names)]

    def _checked(self, members: Mapping[str, object] | None) -> Classification | None:
        try:
            return None if members is None else answers.verdict(members, self.model)
        except ClassifierInvalidAnswer:
            return None


@asynccontextmanager
async def _within(seconds: float) -> AsyncIterator[None]:
    """Bound what is asked in the block. Raises ClassifierError alone."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise ClassifierTimeout("no answer in time") from None
    except CompletionFailed as failed:
        raise failed.error from None


class _Call:
    def __init__(
        self,
        asker: Asker,
        complete: Completion,
        forms: _Forms,
        seconds: float,
        tally: Tally,
        early: Early = unheard,
        *,
        streams: bool = False,
    ) -> None:
        self._asker = asker
        self._complete = complete
        self._forms = forms
        self._ends = asyncio.get_running_loop().time() + seconds
        self._early = early
        self._tally = tally
        self._form = forms.first
        self._streams = streams
        self._retries = asker.max_retries
        self.told: Classification | None = None
        """What was told early."""

    def held(self, found: Classification) -> Classification:
        """Return `found`, or what was told early when that says other labels."""
        told = self.told
        if told is None:
            return found
        same = (told.severity, told.category, told.confidence) == (found.severity, found.category, found.confidence)
        return found if same else told

    async def verdict(self, messages: Messages) -> Classification:
        text = await self.text(messages)
        try:
            return answers.parse(text, self._asker.model)
        except ClassifierInvalidAnswer:
            if self.told is not None:  # the labels hold; text alone is not worth a request
                raise
            said = {"role": "assistant", "content": text or "(nothing)"}  # providers refuse empty messages
            again = [*messages, said, {"role": "user", "content": _REMINDER}]
            return answers.parse(await self.text(again), self._asker.model)

    async def text(self, messages: Messages) -> str:
        # No logger: backoff would log the arguments, which hold the prompt. No jitter: `_waits` has its own.
        persistent = backoff.on_exception(
            _waits,  # type: ignore[arg-type] # backoff's type has no room for what it sends in, the failure
            CompletionFailed,
            max_tries=1 + self._retries,
            giveup=_final,
            on_backoff=self._retried,
            jitter=None,
            logger=None,
            ends=self._ends,
        )(self._once)
        return await persistent(messages)

    def _retried(self, _: object) -> None:
        self._retries -= 1

    async def _once(self, messages: Messages) -> str:
        while True:
            try:
                text = await self._request(messages)
            except CompletionFailed as failed:
                if not failed.form_refused or self._form + 1 >= len(self._asker.forms):
                    raise
                self._form += 1
            else:
                # Only now: it might have been the request that was refused, not its form.
                self._forms.first = self._form
                return text

    async def _request(self, messages: Messages) -> str:
        streams, breaks = self._streams, self._asker.breaks
        self._tally.usage += Usage(requests=1)
        try:
            reply = await self._complete(
                messages,
                form=self._asker.forms[self._form],
                seconds=self._ends - asyncio.get_running_loop().time(),
                heard=self._heard if streams else None,
            )
        except CompletionFailed as failed:
            self._tally.usage += failed.usage
            if failed.stream_broken:
                self._streams = False
                self._asker.stream_broke(breaks)
            raise
        self._tally.usage += reply.usage
        if streams:
            self._asker.stream_ended()
        return reply.text[: answers.TEXT_LIMIT]

    def _heard(self, text: str) -> None:
        if (
            self.told is None
            and len(text) <= answers.EARLY_LIMIT
            and (found := answers.labels(text, self._asker.model))
        ):
            self.told = found
            self._early(found)


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
