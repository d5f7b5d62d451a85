"""Processes that end with the demo: in order when it can, by the kernel's hand when it is killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Self, cast

_TETHER: Final = Path(__file__).with_name("tether.py")
_LINES: Final = 15
"""Of a child's output are shown when it fails."""
_LONGEST_LINE: Final = 1 << 20
_POLL: Final = 0.1


class DemoError(Exception):
    """The demo cannot go on. The message tells people why, and what to do about it."""


class Child:
    """A process of the demo, and the end of what it said."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, on_line: Callable[[str], None] | None) -> None:
        self.name = name
        self._process = process
        self._lines: deque[str] = deque(maxlen=_LINES)
        self._on_line = on_line
        self._reading = asyncio.create_task(self._read(), name=f"output of {name}")
        self.ended = asyncio.create_task(process.wait(), name=f"end of {name}")

    @classmethod
    async def start(
        cls,
        name: str,
        command: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        on_line: Callable[[str], None] | None = None,
    ) -> Self:
        """Start `command`, and pass each line that it prints to `on_line`. Whoever starts a child stops it.

        `env` is its environment; by default ours, without the settings of the model.
        """
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(_TETHER), str(os.getpid())),
            *command,
            cwd=cwd,
            # The key of a model is the proxy's business alone.
            env=env or {name: value for name, value in os.environ.items() if not name.startswith("LLM_")},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=_LONGEST_LINE,
            # Ctrl-C is for the demo, which then ends its children one after the other.
            start_new_session=True,
        )
        return cls(name, process, on_line)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.returncode is None

    async def becomes(self, ready: Callable[[], Awaitable[bool]], within: float) -> bool:
        """Return whether the child got `ready`; False when it ended first. Raises DemoError when time is up."""
        try:
            async with asyncio.timeout(within):
                while self.running:
                    if await ready():
                        return True
                    await asyncio.wait([self.ended], timeout=_POLL)
        except TimeoutError:
            raise DemoError(f"{self.name} was not ready within {within:.0f} s.{self._said()}") from None
        return False

    async def failure(self) -> DemoError:
        """Return what to say about a child that ended and should not have."""
        await self._read_to_the_end()
        status = self._process.returncode
        how = f"by signal {-status}" if status is not None and status < 0 else f"with status {status}"
        return DemoError(f"{self.name} ended by itself, {how}.{self._said()}")

    async def stop(self, grace: float) -> None:
        """End the child and whatever it started in its process group: told first, `grace` seconds later killed."""
        try:
            self._signal_group(signal.SIGTERM)
            await asyncio.wait([self.ended], timeout=grace)
        finally:
            self._signal_group(signal.SIGKILL)
            await self._process.wait()
            await self._read_to_the_end()

    def _signal_group(self, signum: signal.Signals) -> None:
        # Once it has been waited for, its number may be somebody else's.
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signum)

    async def _read(self) -> None:
        output = cast(asyncio.StreamReader, self._process.stdout)  # it was started with a pipe
        while True:
            try:
                raw = await output.readline()
            except ValueError:  # a line beyond the limit, dropped
                continue
            if not raw:
                return
            line = raw.decode(errors="replace").rstrip()
            self._lines.append(line)
            if self._on_line:
                self._on_line(line)

    async def _read_to_the_end(self) -> None:
        # Its end closes the pipe, unless somebody it started holds the other end: that one's output is not waited for.
        await asyncio.wait([self._reading], timeout=1)
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)

    def _said(self) -> str:
        return "\n  | ".join((" It said:", *self._lines)) if self._lines else " It said nothing."
