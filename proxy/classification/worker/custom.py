"""Classifiers of the user's own: found, made, asked. Runs in the worker, and in `try-classifier`.

Nothing that one does may be trusted: it may raise whatever there is, answer with whatever there is, and not come back.
Its exceptions end here, and their messages may hold what it was shown, so only the names of their classes get further.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import json
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, TypeVar

from proxy import classifiers
from proxy.classification import answers
from proxy.classification.usage import NO_USAGE, Usage
from proxy.classification.worker.asking import Asker, CompletionFailed, Form, Messages, Reply
from proxy.classification.worker.protocol import Ask, Model
from proxy.errors import (
    ClassifierError,
    ClassifierInvalidAnswer,
    ClassifierRateLimited,
    ClassifierRejected,
    ClassifierTimeout,
    ClassifierUnavailable,
    ClassifierUndecided,
    ClassifierUnusable,
)

# Seconds, all of them.
_GRACE: Final = 1.0  # beyond its deadline, in which a thread may still come back; then the process has to go
_CLOSE_WITHIN: Final = 1.0

_THREADS: Final = 64
"""As many as `llm.concurrency` can be."""

_MEMBERS: Final = (*answers.LABELS, "summary", "recommendations")
_STEPS: Final = 20
"""More recommendations than are used. The rest is not looked at."""
_MOST: Final = 1e9
"""Of tokens, dollars and seconds: what is more is no count."""

_ERRORS: Final[tuple[tuple[type[BaseException], type[ClassifierError]], ...]] = (
    (classifiers.RateLimited, ClassifierRateLimited),
    (classifiers.Unavailable, ClassifierUnavailable),
    (classifiers.Undecided, ClassifierUndecided),
    (TimeoutError, ClassifierTimeout),
    (ConnectionError, ClassifierUnavailable),
)

_T = TypeVar("_T")
OnError = Callable[[BaseException], None]


def unheard(_: BaseException) -> None:
    """What is told of exceptions where nobody may see their messages."""


def setup(model: Model) -> classifiers.Setup:
    """Return what a classifier is told of the settings."""
    name, _, rest = model.model.partition("/")
    return classifiers.Setup(name, rest, model.api_key, model.base_url)


def made(chosen: classifiers.Setup, on_error: OnError = unheard) -> Any:
    """Return the classifier that was `chosen`, or the handler of a CustomLLM. Raises ClassifierUnusable."""
    found = _found(chosen.name)
    what = f"the classifier {chosen.name!r} ({found.value})"
    try:
        make = found.load()
    except BaseException as exc:  # noqa: BLE001 - it may even want to leave
        on_error(exc)
        of = f" for {exc.name}" if isinstance(exc, ImportError) and exc.name else ""
        raise ClassifierUnusable(f"{what} cannot be imported: {type(exc).__name__}{of}") from None
    if is_litellms(make) and not isinstance(make, type):
        return make
    try:
        classifier = make() if is_litellms(make) else make(chosen)
        works = is_litellms(classifier) or callable(getattr(classifier, "classify", None))
    except BaseException as exc:  # noqa: BLE001 - as above
        on_error(exc)
        raise ClassifierUnusable(f"{what} cannot be made: {type(exc).__name__}") from None
    if not works:
        raise ClassifierUnusable(f"{what} has no method classify")
    return classifier


def is_litellms(found: object) -> bool:
    """Return whether `found` is a CustomLLM, or a class of them: a provider for LiteLLM to ask."""
    custom = getattr(sys.modules.get("litellm"), "CustomLLM", None)  # whoever made one has imported it
    if custom is None:
        return False
    return issubclass(found, custom) if isinstance(found, type) else isinstance(found, custom)


def heard(call: Callable[..., Awaitable[_T]], on_error: OnError) -> Callable[..., Awaitable[_T]]:
    """Return what calls `call`, and tells `on_error` what it raises: LiteLLM makes exceptions of its own of them."""

    async def told(*arguments: Any, **named: Any) -> _T:
        try:
            return await call(*arguments, **named)
        except Exception as exc:
            on_error(exc)
            raise

    return told


def _found(name: str) -> EntryPoint:
    installed = list(entry_points(group=classifiers.GROUP))
    found = {point.value: point for point in installed if point.name == name}
    if not found:
        names = ", ".join(sorted({point.name for point in installed}))
        raise ClassifierUnusable(
            f"no classifier {name!r} is installed, want a package that brings it in the proxy's Python environment; "
            f"installed: {names or 'none'}"
        )
    if len(found) > 1:
        raise ClassifierUnusable(f"several packages bring a classifier {name!r}: {', '.join(sorted(found))}")
    return next(iter(found.values()))


class Custom:
    """A classifier that was made, and what it takes to ask it."""

    def __init__(
        self,
        classifier: Any,
        *,
        model: str,
        max_retries: int,
        on_stuck: Callable[[], None],
        on_error: OnError = unheard,
    ) -> None:
        """`model` is the name its verdicts carry. `on_stuck` hears that a thread of it is lost for good, `on_error`
        each exception."""
        self._classifier = classifier
        self._model = model
        self._max_retries = max_retries
        self._on_stuck = on_stuck
        self._on_error = on_error
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="classifier")

    def about(self, ask: Ask) -> Asker:
        """Return what asks it one question: as any model is asked, within one deadline and with the same retries."""
        ends = asyncio.get_running_loop().time() + ask.seconds
        complete = functools.partial(self._complete, ask.labels, ask.annotations, ends)
        return Asker(complete, model=self._model, max_retries=self._max_retries, forms=(Form.TEXT,))

    async def aclose(self) -> None:
        """Let the classifier close what it has open, for a second at most."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        close = getattr(self._classifier, "aclose", None)
        if close is None:
            return
        with contextlib.suppress(TimeoutError):
            try:
                async with asyncio.timeout(_CLOSE_WITHIN):
                    await close()
            except Exception as exc:  # noqa: BLE001 - nobody waits for anything of it any more
                self._on_error(exc)

    async def _complete(
        self,
        labels: Mapping[str, str],
        annotations: Mapping[str, str],
        ends: float,
        messages: Messages,
        *,
        form: Form,
        seconds: float,
        heard: Callable[[str], None] | None,
    ) -> Reply:
        """Satisfies `asking.Completion`, once the first three are given."""
        request = classifiers.Request(labels, annotations, messages, seconds)
        task = asyncio.current_task()
        try:
            return self._reply(await self._said(request, ends))
        except CompletionFailed:
            raise
        except BaseException as exc:
            # Here a stranger's errors stop, SystemExit among them. A cancellation of ours goes on.
            if isinstance(exc, asyncio.CancelledError) and task is not None and task.cancelling():
                raise
            self._on_error(exc)
            ours = next((ours for kind, ours in _ERRORS if isinstance(exc, kind)), ClassifierRejected)
            later = getattr(exc, "retry_after", None) if isinstance(exc, classifiers.RateLimited) else None
            raise CompletionFailed(ours(type(exc).__name__), retry_after=_amount(later)) from None

    async def _said(self, request: classifiers.Request, ends: float) -> object:
        classify = self._classifier.classify
        said = classify(request) if inspect.iscoroutinefunction(classify) else await self._in_thread(request, ends)
        return await said if inspect.isawaitable(said) else said

    async def _in_thread(self, request: classifiers.Request, ends: float) -> object:
        running = self._threads.submit(_outcome, self._classifier.classify, request)
        try:
            outcome = await asyncio.wrap_future(running)
        except asyncio.CancelledError:
            # Nothing ends a thread but itself. It may have its time; one that stays longer would take a place for ever.
            loop = asyncio.get_running_loop()
            loop.call_at(max(ends, loop.time()) + _GRACE, self._overdue, running)
            raise
        if outcome.error is not None:
            raise outcome.error
        return outcome.said

    def _overdue(self, running: Future[_Outcome]) -> None:
        if not running.done():
            self._on_stuck()

    def _reply(self, said: object) -> Reply:
        """Return an answer as a model would have written it. Raises CompletionFailed for what is none."""
        if isinstance(said, str):
            return Reply(said[: answers.TEXT_LIMIT])
        usage = NO_USAGE
        if isinstance(said, classifiers.Verdict):
            usage = Usage(0, _tokens(said.input_tokens), _tokens(said.output_tokens), _amount(said.cost_usd))
            said = {field.name: getattr(said, field.name) for field in fields(said)}
        try:
            if not isinstance(said, Mapping):
                raise ClassifierInvalidAnswer(f"{type(said).__name__} is no verdict")
            members = {name: _bounded(said.get(name)) for name in _MEMBERS}
            found = answers.members(answers.verdict(members, self._model))
        except ClassifierInvalidAnswer as exc:
            raise CompletionFailed(exc, usage=usage) from None
        return Reply(json.dumps(found), usage)


@dataclass(frozen=True, slots=True)
class _Outcome:
    said: object = None
    error: BaseException | None = None


def _outcome(classify: Callable[[classifiers.Request], object], request: classifiers.Request) -> _Outcome:
    """Return what a call came to. Some exceptions would be lost, or do harm, on the way out of a thread."""
    try:
        return _Outcome(classify(request))
    except BaseException as exc:  # noqa: BLE001 - see above
        return _Outcome(error=exc)


def _bounded(value: object) -> object:
    """Return a member as JSON would have it, and as much of it as is used: texts are cut by whoever reads them."""
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray):
        return list(value[:_STEPS])
    return value


def _tokens(number: object) -> int | None:
    return number if isinstance(number, int) and _amount(number) is not None else None


def _amount(number: object) -> float | None:
    """Return `number` if it can be an amount of something; None if not."""
    if isinstance(number, bool) or not isinstance(number, int | float):
        return None
    return float(number) if 0 <= number <= _MOST else None
