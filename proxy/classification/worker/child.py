"""The child's side of the model worker. See `protocol` for what is said, and `client` for who listens.

It answers as many calls at once as it is sent; the parent bounds them. It ends when its socket does, so that it never
outlives a parent that was killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

from proxy.classification import answers
from proxy.classification.worker import protocol
from proxy.classification.worker.asking import Asker
from proxy.classification.worker.protocol import (
    Answered,
    Ask,
    Cancel,
    Configure,
    Crashed,
    Failed,
    Message,
    Ready,
    Unusable,
)
from proxy.errors import ClassifierError, ClassifierRejected, ClassifierUnusable

_Send = Callable[[Message], None]

_NICENESS = 10
# When memory runs out, this process goes before the one that forwards alerts.
_OOM_SCORE = 900
# Seconds to leave in, once there is nobody to answer. A thread stuck in a name server's silence would hold us.
_LEAVE_WITHIN = 5


def main(fd: int) -> None:
    """Serve the parent on the socket `fd` until it closes."""
    os.nice(_NICENESS)
    with contextlib.suppress(OSError):  # Linux only, and not in every sandbox
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE))
    asyncio.run(_serve(socket.socket(fileno=fd)))


async def _serve(sock: socket.socket) -> None:
    reader, writer = await asyncio.open_connection(sock=sock)

    def send(message: Message) -> None:
        writer.write(protocol.encode(message))

    try:
        configure = await protocol.receive(reader)
        if not isinstance(configure, Configure):
            return
        try:
            await _answer_calls(configure, reader, send)
        except ClassifierUnusable as exc:
            send(Unusable(str(exc)))
    except Exception as exc:  # noqa: BLE001 - its class must reach the parent: our stderr goes nowhere
        send(Crashed(type(exc).__name__))
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):  # the parent may be gone
            await writer.wait_closed()


async def _answer_calls(configure: Configure, reader: asyncio.StreamReader, send: _Send) -> None:
    try:
        # Stalls this loop for seconds. Nobody waits on it: calls are sent once we are ready.
        from proxy.classification.worker import litellm_adapter
    except ImportError as exc:
        raise ClassifierUnusable(f"LiteLLM cannot be imported: {type(exc).__name__} for {exc.name}") from None
    model = litellm_adapter.LiteLLM(configure)
    asker = Asker(model, model=configure.model, max_retries=configure.max_retries)
    send(Ready(litellm_adapter.VERSION))

    calls: dict[int, asyncio.Task[None]] = {}
    try:
        while message := await protocol.receive(reader):
            match message:
                case Ask():
                    task = asyncio.create_task(_answer(asker, message, send), name=f"call {message.call}")
                    calls[message.call] = task
                    task.add_done_callback(lambda _, call=message.call: calls.pop(call, None))  # type: ignore[misc] # mypy cannot infer a lambda with a default
                case Cancel(call) if call in calls:
                    calls[call].cancel()
    finally:
        signal.alarm(_LEAVE_WITHIN)
        running = list(calls.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await model.close()


async def _answer(asker: Asker, ask: Ask, send: _Send) -> None:
    try:
        verdict = await asker.ask(ask.messages, ask.seconds)
    except ClassifierError as exc:
        send(Failed(ask.call, exc.reason, str(exc)))
    except Exception as exc:  # noqa: BLE001 - a bug of ours or LiteLLM's ends one call, not the worker
        send(Failed(ask.call, ClassifierRejected.reason, type(exc).__name__))
    else:
        send(Answered(ask.call, answers.members(verdict)))
