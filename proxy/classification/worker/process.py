"""One life of the model worker's process, seen from the parent."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Self

from proxy.classification.worker import protocol
from proxy.classification.worker.protocol import Message


class WorkerProcess:
    """A child process and the socket to it. Whoever starts one stops it."""

    def __init__(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._watch = asyncio.create_task(self._hang_up_after_it(), name="end of the model worker's process")

    @classmethod
    async def start(cls, withheld: Collection[str]) -> Self:
        """Start a child, which then waits for Configure. Raises OSError.

        It gets our environment, for the credentials that clouds put there, without the variables named in `withheld`.
        """
        ours, its = socket.socketpair()
        try:
            with its:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    # Not the working directory: whoever can write there would get the key.
                    "-P",
                    "-m",
                    "proxy.classification.worker",
                    str(its.fileno()),
                    pass_fds=(its.fileno(),),
                    env=_environment(withheld),
                    # Ctrl-C is for the parent, which then ends the child in its own time.
                    start_new_session=True,
                    # What libraries print may hold the prompt or the key. A crash is named over the socket.
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.DEVNULL,
                )
            reader, writer = await asyncio.open_connection(sock=ours)
        except BaseException:
            ours.close()  # which ends a child that was started
            raise
        return cls(process, reader, writer)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Negative: the signal that ended it. None while it runs."""
        return self._process.returncode

    def send(self, message: Message) -> None:
        """Send `message`; without effect once the child is gone. Raises protocol.ProtocolError when it is too big."""
        frame = protocol.encode(message)
        if not self._writer.is_closing():
            self._writer.write(frame)

    async def receive(self) -> Message | None:
        """Return the child's next message, or None when there will be no more. Raises protocol.ProtocolError."""
        return await protocol.receive(self._reader)

    def kill(self) -> None:
        """End the child at once, hung or stopped as it may be, and what it has started."""
        if self.exit_code is None:  # else its number may be somebody else's
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    async def stop(self, grace: float) -> None:
        """End the child and reap it: asked by the end of its socket, `grace` seconds later told, then killed."""
        self._writer.close()
        try:
            await self._ended_within(grace)
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            await self._ended_within(grace)
        finally:
            self.kill()
            self._watch.cancel()
            await self._process.wait()
            with contextlib.suppress(ConnectionError):  # it died with our words unread
                await self._writer.wait_closed()

    async def _hang_up_after_it(self) -> None:
        # Its end of the socket may be open in a process that a classifier has forked: that would never end for us. What
        # it has said is read by now: both were seen in one turn of the loop.
        await self._process.wait()
        self._writer.transport.abort()

    async def _ended_within(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), seconds)


def _environment(withheld: Collection[str]) -> dict[str, str]:
    environ = {name: value for name, value in os.environ.items() if name not in withheld}
    # Where the parent found this package, the child does.
    found = str(Path(__file__).parents[3])
    environ["PYTHONPATH"] = os.pathsep.join([found, *filter(None, [environ.get("PYTHONPATH")])])
    return environ
