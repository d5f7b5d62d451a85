"""Runs `classify` as people do: in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configuring import REPOSITORY
from own_classifiers import POINTS, ROGUE, install
from workers import SECRET


@dataclass(frozen=True)
class Done:
    code: int | None
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def installed() -> None:
    """Install the classifiers of `own_classifiers` beside the proxy, for the commands of this directory."""
    install(Path("installed"), ROGUE, POINTS)


def no_store() -> bool:
    """Return whether nothing was opened where a proxy keeps what it knows."""
    return not Path("data").exists()


async def started(
    *arguments: str, key: str = SECRET, stderr: int = asyncio.subprocess.PIPE
) -> asyncio.subprocess.Process:
    environ = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy", "classify", *arguments),
        env={**environ, "PYTHONPATH": f"{REPOSITORY}:installed", **({"LLM_API_KEY": key} if key else {})},
        stdout=asyncio.subprocess.PIPE,
        stderr=stderr,
        # What runs in the background of a script ignores it, and hands that on to whatever it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


async def classify(*arguments: str, key: str = SECRET) -> Done:
    """Return what the command printed, once it has ended. `key` is the one of the configured provider."""
    process = await started(*arguments, key=key)
    try:
        out, err = await asyncio.wait_for(process.communicate(), 90)
    finally:
        if process.returncode is None:
            process.kill()
    return Done(process.returncode, out.decode(), err.decode())
