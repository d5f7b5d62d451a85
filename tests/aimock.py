"""aimock, somebody else's idea of what the providers speak: npm's `@copilotkit/aimock` as a process of its own."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

PACKAGE = "@copilotkit/aimock@1.43.0"


class NoAimock(Exception):
    """It cannot be had here, for the reason given."""


class Aimock:
    def __init__(self, url: str) -> None:
        self.url = url

    async def asked(self, about: str) -> list[dict[str, Any]]:
        """Return the bodies of the requests in which `about` occurs, in their order."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/v1/_requests") as response:
            journal = await response.json()
        return [entry["body"] for entry in journal if about in json.dumps(entry["body"])]


@asynccontextmanager
async def aimock(directory: Path, fixtures: Sequence[Any]) -> AsyncIterator[Aimock]:
    """Install it below `directory` and run it. Raises NoAimock."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        raise NoAimock("Node.js and npm are not on PATH")
    (directory / "package.json").write_text('{"private": true}\n')
    # Install scripts are other people's programs.
    quietly = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--fetch-retries=0"]
    install = await _start(npm, "install", *quietly, PACKAGE, cwd=directory)
    try:
        said, _ = await asyncio.wait_for(install.communicate(), 60)
    except TimeoutError:
        said = b"no answer in time"
        await _end(install)
    if install.returncode != 0:
        raise NoAimock(f"npm cannot install {PACKAGE}: {said.decode(errors='replace')[-300:]}")
    (directory / "fixtures.json").write_text(json.dumps({"fixtures": list(fixtures)}))
    cli = "node_modules/@copilotkit/aimock/dist/cli.js"
    server = await _start(node, cli, "-p", "0", "-f", "fixtures.json", "--strict", "--validate-on-load", cwd=directory)
    assert server.stdout is not None
    try:
        async with asyncio.timeout(30):
            while not (
                listening := re.search(r"listening on (\S+)", line := (await server.stdout.readline()).decode())
            ):
                assert line, "aimock has ended"
        drained = asyncio.create_task(server.stdout.read(), name="what aimock says")
        yield Aimock(listening[1])
    finally:
        await _end(server)
    await drained


async def _start(program: str, *arguments: str, cwd: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        program,
        *arguments,
        cwd=cwd,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    await process.wait()
