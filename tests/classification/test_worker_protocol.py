from __future__ import annotations

import asyncio
import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.classification.usage import Usage
from proxy.classification.worker import protocol
from proxy.classification.worker.protocol import (
    Answered,
    Ask,
    Cancel,
    Configure,
    Crashed,
    Failed,
    Labelled,
    Message,
    Model,
    ProtocolError,
    Ready,
    Streaming,
    Unusable,
)
from proxy.errors import ClassifierRateLimited, ClassifierRejected

MESSAGES: list[Message] = [
    Configure([Model("openai", "gpt-4o", "sk-secret", None), Model("ollama", "m", "", "http://h")], 3, 300, True),
    Ask(1, 0, [{"role": "user", "content": "Straße ☃"}], 29.5),
    Cancel(1),
    Ready("1.0", ["", "why not"], ["no key", ""]),
    Unusable("LiteLLM knows no provider 'x'"),
    Labelled(1, {"severity": "info"}),
    Answered(1, {"severity": "info"}, Usage(2, 960, 180, 0.0042)),
    Failed(1, "rate_limited", "RateLimitError 429", Usage(1)),
    Streaming(0, False),
    Crashed("MemoryError"),
]


def framed(members: object) -> bytes:
    body = json.dumps(members).encode()
    return len(body).to_bytes(4, "big") + body


async def read(data: bytes) -> Message | None:
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    return await protocol.receive(reader)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
async def test_a_message_arrives_as_it_was_sent(message: Message):
    assert await read(protocol.encode(message)) == message


async def test_the_end_is_no_message():
    assert await read(b"") is None
    assert await read(protocol.encode(MESSAGES[0])[:-1]) is None


def test_what_is_too_big_is_not_sent():
    with pytest.raises(ProtocolError):
        protocol.encode(Ask(1, 0, [{"role": "user", "content": "x" * protocol.FRAME_LIMIT}], 1.0))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\xff\xff\xff\xff", id="a length beyond the limit"),
        pytest.param(b"\0\0\0\2{]", id="no JSON"),
        pytest.param(b"\0\0\0\2[]", id="no object"),
        pytest.param(b"\0\0\0\2{}", id="no type"),
        pytest.param(b"\0\0\0\x0f" + b'{"type":"Fly"}\n', id="unknown type"),
        pytest.param(framed({"type": "Labelled", "call": 1, "members": None}), id="labels that are none"),
        pytest.param(framed({"type": "Answered", "call": 1, "members": {}, "usage": 7}), id="a usage that is none"),
        pytest.param(framed({"type": "Configure", "models": ["gpt-4o"]}), id="a model that is none"),
        pytest.param(b"\0\0\0\x11" + b'{"type":"Cancel"}', id="a member is missing"),
    ],
)
async def test_what_is_no_message_is_refused(data: bytes):
    with pytest.raises(ProtocolError):
        await read(data)


@given(st.binary())
def test_any_bytes_are_a_message_or_refused(body: bytes):
    with contextlib.suppress(ProtocolError):
        asyncio.run(read(len(body).to_bytes(4, "big") + body))


def test_a_failure_becomes_its_error():
    error = Failed(1, "rate_limited", "RateLimitError 429", Usage(1)).error()
    assert isinstance(error, ClassifierRateLimited)
    assert str(error) == "RateLimitError 429"


def test_an_unknown_failure_is_not_tried_again():
    assert isinstance(Failed(1, "???", "x", Usage()).error(), ClassifierRejected)


@pytest.mark.parametrize("message", [MESSAGES[0], MESSAGES[1]], ids=["key", "prompt"])
def test_nothing_secret_is_in_a_repr(message: Message):
    assert "sk-secret" not in repr(message)
    assert "Straße" not in repr(message)


def test_a_frame_is_json():
    frame = protocol.encode(Cancel(7))
    assert json.loads(frame[4:]) == {"type": "Cancel", "call": 7}
