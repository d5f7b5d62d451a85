"""Runs the commands of a page as they stand there, in a directory of their own.

What differs from a reader's machine is outside of the commands: ports that may be taken here are exchanged for free
ones, the provider's address is a local server's, and `alertmanager-ai-proxy` on PATH is this tree.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from ports import free_port
from real import ROOT, alertmanagers

PORTS = ("9093", "19093", "19094", "11434", "8000")
"""Those that pages name."""
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    heading: str
    """The nearest one above it."""
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    """Return what stands between fences, in its order."""
    found = []
    for part in re.split(r"^(?=##+ )", page.read_text(), flags=re.MULTILINE):
        heading = part.partition("\n")[0].lstrip("# ")
        found += [Block(heading, *fenced.groups()) for fenced in _FENCE.finditer(part)]
    return found


@dataclass
class Reader:
    """Somebody who does what a page says."""

    home: Path
    env: dict[str, str]
    ports: dict[str, str]
    done: list[Block] = field(default_factory=list)
    said: Path = field(init=False)

    def __post_init__(self) -> None:
        self.said = self.home / "said"

    def url(self, port: str) -> str:
        return f"http://127.0.0.1:{self.ports[port]}"

    def here(self, text: str) -> str:
        """Return a text of the page with the ports of this machine."""
        return re.sub(rf"\b({'|'.join(PORTS)})\b", lambda port: self.ports[port[0]], text)

    async def does(self, block: Block, pastes: str = "") -> str:
        """Run a block, and return what it printed."""
        self.done.append(block)
        async with asyncio.timeout(60):
            process = await self._start(block, asyncio.subprocess.PIPE, asyncio.subprocess.PIPE)
            said, _ = await process.communicate(pastes.encode())
        assert process.returncode == 0, f"{block.text}\n{said.decode()}"
        return said.decode()

    @asynccontextmanager
    async def leaves_running(self, block: Block, ready: str) -> AsyncIterator[None]:
        """Run a block that does not end until the context does. `ready` answers 200 once it is up."""
        if block not in self.done:
            self.done.append(block)
        with self.said.open("ab") as out:
            process = await self._start(block, asyncio.subprocess.DEVNULL, out.fileno())
        try:
            await self._up(ready, process)
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
            try:
                await asyncio.wait_for(process.wait(), 15)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    async def _start(self, block: Block, stdin: int, stdout: int) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *("bash", "-eu", "-o", "pipefail", "-c", self.here(block.text)),
            cwd=self.home,
            env=self.env,
            stdin=stdin,
            stdout=stdout,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )

    async def _up(self, url: str, process: asyncio.subprocess.Process) -> None:
        async with aiohttp.ClientSession() as client, asyncio.timeout(30):
            while True:
                assert process.returncode is None, self.said.read_text()
                with contextlib.suppress(aiohttp.ClientError):
                    async with client.get(url) as answered:
                        if answered.status == 200:
                            return
                await asyncio.sleep(0.05)


def a_reader(directory: Path, environment: Mapping[str, str]) -> Reader:
    """Return a reader with the programs that pages name on PATH, and nothing set but `environment`."""
    built = ROOT / ".tools" / "bin"
    assert alertmanagers(), "no alertmanager on PATH: `make programs` installs it"
    assert shutil.which("amtool") or (built / "amtool").exists(), "no amtool on PATH: `make programs` installs it"
    programs = directory / "bin"
    home = directory / "home"
    programs.mkdir()
    home.mkdir()
    put(programs / "alertmanager-ai-proxy", f'exec "{sys.executable}" -m proxy "$@"')
    put(programs / "prometheus-alertmanager", f'exec "{alertmanagers()[0]}" "$@"')
    # There is no cluster: what it would be told is written down.
    put(programs / "kubectl", f"""echo "kubectl $*" >> "{home}/kubectl"; [ "$3" != patch ] || cat > "{home}/patch\"""")
    ports = {name: str(free_port()) for name in PORTS}
    settings = ("LLM_", "ENRICHMENT_", "WEB_", "STORE_", "ALERTMANAGER_", "STORAGE_", "LOG_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(settings)}
    env = kept | {
        "PATH": f"{programs}:{os.environ['PATH']}:{built}",
        "PYTHONPATH": str(ROOT),
        "WEB_ADMIN_LISTEN_ADDRESS": f"127.0.0.1:{ports['19094']}",
        **environment,
    }
    return Reader(home, env, ports)


def put(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
