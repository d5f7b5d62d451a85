"""Makes what the worker asks out of what the settings name. Runs in the worker, and in `try-classifier`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import Any

from proxy import classifiers
from proxy.classification.worker import custom, providers
from proxy.classification.worker.asking import Asker
from proxy.classification.worker.custom import Custom
from proxy.classification.worker.protocol import Ask, Configure, Model
from proxy.errors import ClassifierUnusable

Made = Asker | Custom | ClassifierUnusable
"""What can be asked; or why not."""


def asker_of(made: Made, ask: Ask) -> Asker:
    """Return what asks this question. Raises ClassifierUnusable for what cannot be asked at all."""
    if isinstance(made, ClassifierUnusable):
        raise made
    return made.about(ask) if isinstance(made, Custom) else made


class Making:
    """Loads LiteLLM for the first model that needs it: a classifier of the user's own alone does without."""

    def __init__(
        self,
        configure: Configure,
        stack: AsyncExitStack,
        *,
        on_stuck: Callable[[], None],
        on_error: custom.OnError = custom.unheard,
        on_streaming: Callable[[int, bool], None] = lambda _place, _works: None,
    ) -> None:
        """`stack` closes what is made. `on_stuck` and `on_error` are as `Custom` has them, `on_streaming` is as `Asker`
        has it, with the place of the model."""
        self._configure = configure
        self._stack = stack
        self._on_stuck = on_stuck
        self._on_error = on_error
        self._on_streaming = on_streaming
        self._connections: Any = None
        self._made: list[tuple[Model, Made]] = []
        self.doubts: list[str] = []
        """For each model that was made what seems to be missing; empty: nothing."""
        self.version = ""
        """Of LiteLLM, once it is loaded."""

    async def models(self, api_keys: Sequence[str] | None = None) -> list[Made]:
        """Return what asks each model that is configured, by their place; with other keys, if they are given.

        A model that has the key it had stays what it is.
        """
        self.doubts.clear()
        keys = api_keys or [model.api_key for model in self._configure.models]
        wanted = [replace(model, api_key=key) for model, key in zip(self._configure.models, keys, strict=True)]
        for place, model in enumerate(wanted):
            if place >= len(self._made) or self._made[place][0] != model:
                self._made[place : place + 1] = [(model, await self.model(model, place))]
        return [made for _, made in self._made]

    async def model(self, chosen: Model, place: int = 0) -> Made:
        """Return what asks `chosen`, the model of that place."""
        self.doubts.append("")
        try:
            if chosen.provider == classifiers.PROVIDER:
                return await self._custom(chosen, place)
            return await self._of_litellm(chosen, place, stream=self._configure.stream)
        except ClassifierUnusable as exc:
            return exc

    async def _custom(self, chosen: Model, place: int) -> Asker | Custom:
        setup = custom.setup(chosen)
        classifier = custom.made(setup, self._on_error)
        if custom.is_litellms(classifier):
            if self._on_error is not custom.unheard:
                classifier.acompletion = custom.heard(classifier.acompletion, self._on_error)
            adapter = await self._litellm()
            streams = adapter.register(setup.name, classifier)
            named = replace(chosen, provider=setup.name, model=setup.model or setup.name)
            return await self._of_litellm(named, place, stream=self._configure.stream and streams)
        made = Custom(
            classifier,
            model=chosen.model,
            max_retries=self._configure.max_retries,
            on_stuck=self._on_stuck,
            on_error=self._on_error,
        )
        self._stack.push_async_callback(made.aclose)
        return made

    async def _of_litellm(self, chosen: Model, place: int, *, stream: bool) -> Asker:
        adapter = await self._litellm()
        complete = adapter.LiteLLM(chosen, self._configure.max_tokens, self._connections)
        self.doubts[-1] = complete.doubt
        return Asker(
            complete,
            model=chosen.model,
            max_retries=self._configure.max_retries,
            stream=stream,
            forms=providers.forms(chosen.provider),
            together=complete.together,
            on_streaming=partial(self._on_streaming, place),
        )

    async def _litellm(self) -> Any:
        try:
            # Stalls this loop for seconds. Nobody waits on it: calls are sent once we are ready.
            from proxy.classification.worker import litellm_adapter
        except ImportError as exc:
            raise ClassifierUnusable(f"LiteLLM cannot be imported: {type(exc).__name__} for {exc.name}") from None
        if self._connections is None:
            self._connections = await self._stack.enter_async_context(litellm_adapter.connections())
            self.version = litellm_adapter.VERSION
        return litellm_adapter
