"""What the providers' answers look like on the wire: whole, and in pieces as they are streamed.

A `Said` is what the model says, whatever the provider. Each wire makes one body of it, or the frames of a stream.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

PIECE = 12
"""Characters of text in one frame of a stream."""


@dataclass(frozen=True)
class Said:
    """What the model says."""

    text: str | None
    """None: a well-formed answer in which it says nothing."""
    cut_off: bool = False
    """Whether it says that it came to the end of its tokens."""
    counted: bool = True
    """Whether the provider counts: 480 tokens in, 90 out."""

    @property
    def pieces(self) -> list[str]:
        text = self.text or ""
        return [text[at : at + PIECE] for at in range(0, len(text), PIECE)]


class Wire(Protocol):
    content_type: str
    """Of a stream."""

    def whole(self, said: Said, asked: Any) -> Any:
        """Return the body of an answer that is not streamed."""
        ...

    def frames(self, said: Said, asked: Any) -> Iterator[bytes]:
        """Yield a stream, one frame for each piece of the text among them."""
        ...


class OpenAI:
    content_type = "text/event-stream"

    def whole(self, said: Said, asked: Any) -> Any:
        message = {"role": "assistant", "content": said.text}
        choice = {"index": 0, "finish_reason": self._reason(said), "message": message}
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1_700_000_000,
            "model": asked["model"],
            "choices": [choice] if said.text is not None else [],
            **({"usage": self._usage} if said.counted else {}),
        }

    def frames(self, said: Said, asked: Any) -> Iterator[bytes]:
        if said.text is not None:
            yield self._chunk(asked, {"role": "assistant", "content": ""})
            for piece in said.pieces:
                yield self._chunk(asked, {"content": piece})
            yield self._chunk(asked, {}, self._reason(said))
        if said.counted and asked.get("stream_options", {}).get("include_usage"):
            yield _event({**self._frame(asked), "choices": [], "usage": self._usage})
        yield b"data: [DONE]\n\n"

    def _chunk(self, asked: Any, delta: Any, reason: str | None = None) -> bytes:
        return _event({**self._frame(asked), "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})

    def _frame(self, asked: Any) -> dict[str, Any]:
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1_700_000_000,
            "model": asked["model"],
        }

    def _reason(self, said: Said) -> str:
        return "length" if said.cut_off else "stop"

    _usage = {"prompt_tokens": 480, "completion_tokens": 90, "total_tokens": 570}  # noqa: RUF012 - nobody changes it


class Anthropic:
    """Newer models answer in text; older ones are made to call a tool, whose input is the answer."""

    content_type = "text/event-stream"

    def whole(self, said: Said, asked: Any) -> Any:
        content: list[dict[str, Any]] = []
        if said.text is not None:
            content = [{"type": "text", "text": said.text}]
        if said.text is not None and (tool := self._tool(asked)):
            content = [{"type": "tool_use", "id": "toolu_1", "name": tool, "input": _loads(said.text)}]
        return {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": asked["model"],
            "content": content,
            "stop_reason": self._reason(said, asked),
            "stop_sequence": None,
            "usage": self._usage(said),
        }

    def frames(self, said: Said, asked: Any) -> Iterator[bytes]:
        usage = self._usage(said)
        start = {**self.whole(Said(None, counted=said.counted), asked), "stop_reason": None}
        yield self._named("message_start", message=start)
        if said.text is not None:
            tool = self._tool(asked)
            block = (
                {"type": "tool_use", "id": "toolu_1", "name": tool, "input": {}}
                if tool
                else {"type": "text", "text": ""}
            )
            yield self._named("content_block_start", index=0, content_block=block)
            for piece in said.pieces:
                delta = (
                    {"type": "input_json_delta", "partial_json": piece}
                    if tool
                    else {"type": "text_delta", "text": piece}
                )
                yield self._named("content_block_delta", index=0, delta=delta)
            yield self._named("content_block_stop", index=0)
        delta = {"stop_reason": self._reason(said, asked), "stop_sequence": None}
        yield self._named("message_delta", delta=delta, usage=usage)
        yield self._named("message_stop")

    def _named(self, name: str, **members: Any) -> bytes:
        return f"event: {name}\n".encode() + _event({"type": name, **members})

    def _tool(self, asked: Any) -> str | None:
        choice = asked.get("tool_choice", {})
        return choice["name"] if choice.get("type") == "tool" else None

    def _reason(self, said: Said, asked: Any) -> str:
        return "max_tokens" if said.cut_off else "tool_use" if self._tool(asked) else "end_turn"

    def _usage(self, said: Said) -> dict[str, int]:
        return {"input_tokens": 480, "output_tokens": 90} if said.counted else {"input_tokens": 0, "output_tokens": 0}


class Gemini:
    content_type = "text/event-stream"

    def whole(self, said: Said, asked: Any) -> Any:
        return self._answer(said.text, "MAX_TOKENS" if said.cut_off else "STOP", counted=said.counted)

    def frames(self, said: Said, asked: Any) -> Iterator[bytes]:
        pieces = said.pieces
        for number, piece in enumerate(pieces, 1):
            last = number == len(pieces)
            reason = "MAX_TOKENS" if said.cut_off else "STOP"
            yield _event(self._answer(piece, reason if last else None, counted=said.counted and last))
        if not pieces:
            yield _event(self._answer(None, None, counted=said.counted))

    def _answer(self, text: str | None, reason: str | None, *, counted: bool) -> Any:
        candidate: dict[str, Any] = {"index": 0, "content": {"role": "model", "parts": [{"text": text}]}}
        if reason:
            candidate["finishReason"] = reason
        usage = {"promptTokenCount": 480, "candidatesTokenCount": 90, "totalTokenCount": 570}
        return {
            "candidates": [candidate] if text is not None else [],
            **({"usageMetadata": usage} if counted else {}),
            "modelVersion": "fake",
        }


class Ollama:
    content_type = "application/x-ndjson"

    def whole(self, said: Said, asked: Any) -> Any:
        return {
            **self._frame(asked, said.text or ""),
            "done": True,
            "done_reason": "length" if said.cut_off else "stop",
            **({"prompt_eval_count": 480, "eval_count": 90} if said.counted else {}),
        }

    def frames(self, said: Said, asked: Any) -> Iterator[bytes]:
        for piece in said.pieces:
            yield _line({**self._frame(asked, piece), "done": False})
        yield _line(self.whole(Said("", said.cut_off, said.counted), asked))

    def _frame(self, asked: Any, text: str) -> dict[str, Any]:
        message = {"role": "assistant", "content": text}
        return {"model": asked["model"], "created_at": "2026-01-01T00:00:00Z", "message": message}


def _event(members: Any) -> bytes:
    return f"data: {json.dumps(members)}\n\n".encode()


def _line(members: Any) -> bytes:
    return json.dumps(members).encode() + b"\n"


def _loads(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return {"text": text}
