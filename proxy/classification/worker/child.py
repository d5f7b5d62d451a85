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
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from proxy.classification import answers
from proxy.classification.classification import Classification
from proxy.classification.worker import protocol, providers
from proxy.classification.worker.asking import Tally
from proxy.classification.worker.making import Made, Making, asker_of
from proxy.classification.worker.protocol import (
    Answered,
    AnsweredAll,
    Ask,
    Cancel,
    Configure,
    Crashed,
    Failed,
    Keys,
    Labelled,
    Message,
    Ready,
    Streaming,
    Unusable,
)
from proxy.errors import ClassifierError, ClassifierRejected, ClassifierUnusable

_Send = Callable[[Message], None]

_NICENESS = 10
# When memory runs out, this process goes before the one that forwards alerts.
_OOM_SCORE = 900
# Seconds to leave in, once there is nobody to answer. A thread stuck in a name server's silence would hold us.
_LEAVE_WITHIN = 5
# Characters of what a failure says of itself: the name of a stranger's class may not fit into a frame.
_DETAIL = 200


def main(fd: int) -> None:
    """Serve the parent on the socket `fd` until it closes."""
    os.environ.update(providers.LITELLM_ENVIRONMENT)  # a classifier of the user's own may import it before we do
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
    async with contextlib.AsyncExitStack() as stack:
        making = Making(
            configure,
            stack,
            on_stuck=lambda: send(Crashed("a classifier that does not come back")),
            on_streaming=lambda place, works: send(Streaming(place, works)),
        )
        models = await making.models()
        unusable = [str(model) if isinstance(model, ClassifierUnusable) else "" for model in models]
        if all(unusable):
            raise ClassifierUnusable("; ".join(dict.fromkeys(unusable)))
        send(Ready(making.version, unusable, making.doubts))
        await _serve_calls(models, making, reader, send)


async def _serve_calls(models: Sequence[Made], making: Making, reader: asyncio.StreamReader, send: _Send) -> None:
    calls: dict[int, asyncio.Task[None]] = {}

    def ended(call: int, tally: Tally, task: asyncio.Task[None]) -> None:
        del calls[call]
        if task.cancelled():
            # The parent wants to hear it: who says nothing hangs. And what was asked until then has its price. Said
            # here since a call that is given up as soon as it is made never begins.
            send(Failed(call, "cancelled", "", tally.usage))

    try:
        while message := await protocol.receive(reader):
            match message:
                case Ask():
                    tally = Tally()
                    task = asyncio.create_task(
                        _answer(models[message.model], message, send, tally), name=f"call {message.call}"
                    )
                    calls[message.call] = task
                    task.add_done_callback(partial(ended, message.call, tally))
                case Cancel(call) if call in calls:
                    calls[call].cancel()
                case Keys(api_keys):
                    models = await making.models(api_keys)  # calls that run go on with what they have
    finally:
        signal.alarm(_LEAVE_WITHIN)
        running = list(calls.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _answer(model: Made, ask: Ask, send: _Send, tally: Tally) -> None:
    def labelled(verdict: Classification) -> None:
        send(Labelled(ask.call, answers.members(verdict)))

    try:
        asker = asker_of(model, ask)
        if ask.names:
            verdicts = await asker.ask_together(ask.messages, ask.names, ask.seconds, tally)
            found = [None if verdict is None else answers.members(verdict) for verdict in verdicts]
            send(AnsweredAll(ask.call, found, tally.usage))
            return
        verdict = await asker.ask(ask.messages, ask.seconds, labelled, tally)
    except ClassifierError as exc:
        send(Failed(ask.call, exc.reason, str(exc)[:_DETAIL], tally.usage))
    except asyncio.CancelledError:
        raise  # said when the task has ended
    except BaseException as exc:  # noqa: BLE001 - a bug ends one call, not the worker; nor does a CustomLLM that exits
        send(Failed(ask.call, ClassifierRejected.reason, type(exc).__name__[:_DETAIL], tally.usage))
    else:
        send(Answered(ask.call, answers.members(verdict), tally.usage))
