"""Builders for the model worker: its configuration, a watch on it, and children that play a part."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from proxy.alert import Alert
from proxy.classification.classifier import Classifier
from proxy.classification.usage import Usage
from proxy.classification.worker.client import ModelWorker
from proxy.classification.worker.configuration import ModelConfig, WorkerState
from proxy.classification.worker.process import WorkerProcess
from proxy.classification.worker.protocol import Ask, Message, Model

SECRET = "sk-this-key-is-secret"
ALERT = Alert({"alertname": "DiskFull", "severity": "critical"}, {"summary": "sda is 97% full"})
PROVIDERS = {
    "openai": ("gpt-4o", "/v1/chat/completions"),
    "anthropic": ("claude-haiku-4-5", "/v1/messages"),
    "gemini": ("gemini-2.5-flash", "/v1beta/models/gemini-2.5-flash:generateContent"),
    "ollama": ("llama3.2", "/api/chat"),
}
"""Each with a model and the path at which it is asked."""


def a_model(provider: str = "openai", base_url: str | None = None, name: str | None = None) -> Model:
    return Model(provider, name or PROVIDERS.get(provider, ("m", ""))[0], SECRET, base_url)


def config(*models: Model, **changes: Any) -> ModelConfig:
    whole = ModelConfig(
        models=models or [a_model()],
        timeout=timedelta(seconds=60),
        max_retries=2,
        max_tokens=300,
        stream=False,
        withheld=frozenset(),
    )
    return replace(whole, **changes)


class Watched:
    """A worker, and what it told."""

    def __init__(self, config: ModelConfig, **hooks: object) -> None:
        self.states: list[WorkerState] = []
        self.restarts = 0
        self.usage: list[tuple[int, Usage]] = []
        self._changed = asyncio.Event()
        self.worker = ModelWorker(config, on_state=self._state, on_restart=self._restart, on_usage=self._used, **hooks)

    def _state(self, state: WorkerState) -> None:
        self.states.append(state)
        self._changed.set()

    def _restart(self) -> None:
        self.restarts += 1

    def _used(self, model: int, usage: Usage, _alerts: int) -> None:
        self.usage.append((model, usage))

    async def reach(self, state: WorkerState) -> None:
        async with asyncio.timeout(60):
            while self.worker.state is not state:
                self._changed.clear()
                await self._changed.wait()


class Pool:
    """A worker with many models of each provider, so that each test has one that nothing is known about."""

    EACH = 60

    def __init__(self, urls: Mapping[str, str], **changes: Any) -> None:
        """`urls` has the address of each provider; a name like `anthropic/claude-3-haiku` is of that model."""
        self._places: dict[str, Iterator[int]] = {}
        models: list[Model] = []
        for name, url in urls.items():
            provider, _, model = name.partition("/")
            self._places[name] = iter(range(len(models), len(models) + self.EACH))
            models += [a_model(provider, url, model)] * self.EACH
        self.watched = Watched(config(*models, **changes))
        self.worker = self.watched.worker

    def fresh(self, name: str) -> Classifier:
        return self.worker.classifier(next(self._places[name]))


async def gone(pid: int) -> None:
    """Return once the process has ended, whoever's child it is."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(fd, ended.set)
    try:
        async with asyncio.timeout(20):
            await ended.wait()
    finally:
        asyncio.get_running_loop().remove_reader(fd)
        os.close(fd)


class FakeProcess:
    """Says what it is told to, then ends, or stays to be asked and killed."""

    pid = 1
    exit_code = 0

    def __init__(
        self, *said: Message | Exception, stays: bool = False, answer: Callable[[Ask], Sequence[Message]] | None = None
    ) -> None:
        self._said: asyncio.Queue[Message | Exception | None] = asyncio.Queue()
        for message in said:
            self._said.put_nowait(message)
        self._stays = stays
        self._answer = answer
        self.stopped = False
        self.killed = 0
        self.sent: list[Message] = []

    def say(self, message: Message) -> None:
        self._said.put_nowait(message)

    def send(self, message: Message) -> None:
        self.sent.append(message)
        if self._answer and isinstance(message, Ask):
            for said in self._answer(message):
                self._said.put_nowait(said)

    async def receive(self) -> Message | None:
        if self._said.empty() and not self._stays:
            return None
        said = await self._said.get()
        if isinstance(said, Exception):
            raise said
        return said

    def kill(self) -> None:
        self.killed += 1
        self._said.put_nowait(None)

    async def stop(self, grace: float) -> None:
        self.stopped = True


class Sleeps:
    """Waits that take no time and are remembered; the last one never ends."""

    def __init__(self, number: int) -> None:
        self.seconds: list[float] = []
        self.over = asyncio.Event()
        self._number = number

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        if len(self.seconds) == self._number:
            self.over.set()
            await asyncio.Event().wait()


def children(monkeypatch: pytest.MonkeyPatch, make: Callable[[], object]) -> None:
    async def start(_withheld: object) -> object:
        made = make()
        if isinstance(made, Exception):
            raise made
        return made

    monkeypatch.setattr(WorkerProcess, "start", start)
