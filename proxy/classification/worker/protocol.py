"""What the parent and the model worker say to each other over their socket.

    parent → child                      child → parent
    Configure (first, once)             Ready | Unusable
    Keys (whenever they change)
    Ask                                 Labelled (at most once), then Answered | Failed
    Ask of several alerts               AnsweredAll | Failed
    Cancel                              Failed, as `cancelled`; unless the call was answered before
                                        Streaming (whenever that changes for a model)
                                        Crashed (last, before the child exits by itself)

A frame is four bytes of length (big endian) and a JSON object, at most FRAME_LIMIT bytes of it; its member `type`
names the message. The end of the stream ends the child.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, get_args

from proxy.classification.usage import Usage
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

FRAME_LIMIT: Final = 1024 * 1024
"""Bytes of JSON in one frame."""

_LENGTH = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class Model:
    """A model, and what opens its door."""

    provider: str
    """`openai`, `anthropic`, `gemini`, `ollama`, LiteLLM's name of another, or `classifiers.PROVIDER`."""
    model: str
    """In the provider's words; the verdicts carry it."""
    api_key: str = field(repr=False)
    """Empty when the provider takes none, or LiteLLM finds it in the environment."""
    base_url: str | None
    """None for the provider's own."""
    price: Sequence[float] | None = None
    """US dollars for a million tokens, of the prompt and of the answer. None: by LiteLLM's list."""


@dataclass(frozen=True, slots=True)
class Configure:
    """All the child needs to know. Carries the keys: they are in no argument and no variable that others can read."""

    models: Sequence[Model]
    """Asked by their place in here."""
    max_retries: int
    max_tokens: int
    stream: bool


@dataclass(frozen=True, slots=True)
class Keys:
    """Other keys, for the calls from now on."""

    api_keys: Sequence[str] = field(repr=False)
    """Of the models, by their place."""


@dataclass(frozen=True, slots=True)
class Ask:
    call: int
    model: int
    messages: Sequence[Mapping[str, str]] = field(repr=False)
    seconds: float
    """What is left of the call's time, retries included."""
    labels: Mapping[str, str] = field(default_factory=dict, repr=False)
    """As the messages show them; only for a classifier of the user's own, which is given them by name."""
    annotations: Mapping[str, str] = field(default_factory=dict, repr=False)
    """As above."""
    names: Sequence[str] = field(default=(), repr=False)
    """Of the alerts, where they are several: see `batches`."""

    @property
    def alerts(self) -> int:
        """How many it is about."""
        return max(1, len(self.names))


@dataclass(frozen=True, slots=True)
class Cancel:
    call: int


@dataclass(frozen=True, slots=True)
class Ready:
    version: str
    """Of LiteLLM; empty where no model needs it."""
    unusable: Sequence[str]
    """For each model why it cannot be asked; empty: it can. One of them can."""
    doubts: Sequence[str] = ()
    """For each model what it seems to lack; empty: nothing. It is asked all the same."""


@dataclass(frozen=True, slots=True)
class Unusable:
    why: str
    """For the operator; without the key."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """The labels of an answer that is still arriving. They hold."""

    call: int
    members: Mapping[str, object] = field(repr=False)
    """See `answers.members`; without text."""


@dataclass(frozen=True, slots=True)
class Answered:
    call: int
    members: Mapping[str, object] = field(repr=False)
    """See `answers.members`."""
    usage: Usage


@dataclass(frozen=True, slots=True)
class AnsweredAll:
    call: int
    verdicts: Sequence[Mapping[str, object] | None] = field(repr=False)
    """See `answers.members`; one for each name of the question, None for an alert without one."""
    usage: Usage


@dataclass(frozen=True, slots=True)
class Failed:
    call: int
    reason: str
    """Of the ClassifierError."""
    detail: str
    """Names of exception classes and HTTP statuses; never their messages, which may hold the key or the prompt."""
    usage: Usage

    def error(self) -> ClassifierError:
        """Return the error that this reports; an unknown reason counts as a refusal, which is not tried again."""
        return _ERRORS.get(str(self.reason), ClassifierRejected)(str(self.detail)[:200])


@dataclass(frozen=True, slots=True)
class Streaming:
    """That the answers of a model are not streamed for a while, or are again."""

    model: int
    works: bool


@dataclass(frozen=True, slots=True)
class Crashed:
    error: str
    """The class name of what ended the child."""


Message = (
    Configure
    | Keys
    | Ask
    | Cancel
    | Ready
    | Unusable
    | Labelled
    | Answered
    | AnsweredAll
    | Failed
    | Streaming
    | Crashed
)

_MESSAGES: Mapping[str, type[Message]] = {kind.__name__: kind for kind in get_args(Message)}
# Members that are no plain values, and what makes them.
_NESTED: Mapping[str, Callable[[Any], object]] = {
    "models": lambda models: [Model(**model) for model in models],
    "members": dict,
    "names": tuple,
    "usage": lambda usage: Usage(**usage),
}
# Of those that a child reports: the others are about our own queue, breaker and budget.
_ERRORS: Mapping[str, type[ClassifierError]] = {
    kind.reason: kind
    for kind in (
        ClassifierUnusable,
        ClassifierRejected,
        ClassifierRateLimited,
        ClassifierTimeout,
        ClassifierUnavailable,
        ClassifierUndecided,
        ClassifierInvalidAnswer,
    )
}


class ProtocolError(Exception):
    """The other side does not speak this protocol. Nothing more can be read from it."""


def encode(message: Message) -> bytes:
    """Return the frame that carries `message`. Raises ProtocolError when it is too big."""
    body = json.dumps({"type": type(message).__name__, **asdict(message)}).encode()
    if len(body) > FRAME_LIMIT:
        raise ProtocolError(f"a frame of {len(body)} bytes")
    return _LENGTH.pack(len(body)) + body


async def receive(reader: asyncio.StreamReader) -> Message | None:
    """Return the next message, or None at the end of the stream. Raises ProtocolError."""
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        if length > FRAME_LIMIT:
            raise ProtocolError(f"a frame of {length} bytes")
        body = await reader.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    try:
        members: dict[str, Any] = json.loads(body)
        kind = _MESSAGES[members.pop("type")]
        nested: dict[str, Any] = {name: _NESTED[name](value) for name, value in members.items() if name in _NESTED}
        return kind(**members | nested)
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise ProtocolError(type(exc).__name__) from None
