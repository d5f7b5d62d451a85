"""`check-config --probe`: the store and the model."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from fake_provider import FakeProvider, Status, verdict
from fakes import an_alert
from probing import an_alertmanager, probed, raw
from redis_servers import redis_server
from whole import alertname

from proxy.app.probing.store import _servers
from proxy.config import Settings
from proxy.storage.health import ServerHealth

pytestmark = pytest.mark.usefixtures("a_directory_of_its_own")
NOBODY = 65534


async def store(url: str, **flags) -> list[str]:
    async with raw(an_alertmanager()) as am:
        return (await probed(am.url, store__url=url, **flags)).of("store")


def here() -> dict[str, os.stat_result]:
    return {str(one): one.stat() for one in Path().iterdir()}


def make(name: str, content: bytes) -> None:
    Path(name).write_bytes(content)


async def test_a_file_that_can_be_made_is_not_made():
    assert await store("sqlite:") == ["ok: data/decisions.db: can be made"]
    assert await store("sqlite:there/file.db") == ["ok: there/file.db: can be made"]
    assert not here()


async def test_a_file_that_is_there_is_left_as_it_is():
    make("mine.db", b"SQLite format 3\0" + bytes(84))
    before = here()
    assert await store("sqlite:mine.db") == ["ok: mine.db: can be written"]
    after = here()
    assert {name: (one.st_size, one.st_mtime_ns, one.st_ctime_ns) for name, one in after.items()} == {
        name: (one.st_size, one.st_mtime_ns, one.st_ctime_ns) for name, one in before.items()
    }


async def test_files_that_cannot_be_used():
    make("text.db", b"Dear diary,")
    os.mkdir("directory.db")  # noqa: PTH102 # nothing else waits for it
    (text,), (below,), (directory,) = [
        await store(f"sqlite:{name}") for name in ("text.db", "text.db/data.db", "directory.db")
    ]
    assert text == "error: text.db: is no file of SQLite; name another one in store.url"
    assert below == "error: text.db/data.db: text.db is no directory; name another path in store.url"
    assert directory.startswith("error: directory.db: Is a directory")


@pytest.fixture
def as_nobody():
    if os.geteuid():
        pytest.skip("only root may become somebody else")
    Path("closed").mkdir(mode=0o755)
    Path("open").mkdir()
    Path("open/theirs.db").write_bytes(b"SQLite format 3\0")
    Path("open").chmod(0o777)
    Path("open/theirs.db").chmod(0o644)
    for above in Path.cwd().parents:
        if not above.stat().st_mode & 0o001:
            above.chmod(above.stat().st_mode | 0o001)
    Path.cwd().chmod(0o755)
    os.seteuid(NOBODY)
    yield
    os.seteuid(0)


async def test_what_belongs_to_somebody_else(as_nobody):
    (closed,), (theirs,), (fine,) = [
        await store(f"sqlite:{name}") for name in ("closed/new/mine.db", "open/theirs.db", "open/mine.db")
    ]
    assert closed == (
        "error: closed/new/mine.db: user 65534 may not write into closed; give it the directory, or set storage.path"
    )
    assert theirs == "error: open/theirs.db: user 65534 may not write to it; make it the owner"
    assert fine == "ok: open/mine.db: can be made"


async def test_a_disk_that_is_almost_full_is_a_warning(monkeypatch):
    monkeypatch.setattr("proxy.app.probing.store._ROOM", 1 << 60)
    (found,) = await store("sqlite:")
    assert found.startswith("warning: data/decisions.db: ")
    assert "MiB are free there" in found


async def test_a_redis_that_is_well(alone):
    (found,) = await store(alone.url, store__timeout="1s")
    assert found.startswith(f"ok: Redis at 127.0.0.1:{alone.port} answers within ")
    with alone.client() as client:
        assert client.dbsize() == 0


async def test_a_redis_that_is_not(tmp_path):
    with redis_server(tmp_path, 0, "--requirepass", "hunter2", "--maxmemory", "100mb") as redis:
        (no_password,) = await store(redis.url)
        with redis.client() as client:
            client.config_set("requirepass", "")
            client.config_set("maxmemory-policy", "allkeys-lru")
            (evicts,) = await store(redis.url, store__timeout="1s")
            client.config_set("maxmemory", "0")
            (no_limit,) = await store(redis.url, store__timeout="1s")
            client.replicaof("127.0.0.1", 1)
            (replica,) = await store(redis.url, store__timeout="1s")
    (away,) = await store(redis.url)
    assert no_password.startswith(f"error: Redis at 127.0.0.1:{redis.port}: ")
    assert "its maxmemory-policy is allkeys-lru" in evicts
    assert evicts.startswith("warning: ")
    assert no_limit.startswith("ok: ")
    assert replica.startswith(f"error: Redis at 127.0.0.1:{redis.port}: it is a slave, which nobody can write to")
    assert away.startswith(f"error: Redis at 127.0.0.1:{redis.port}: ")
    assert "check store.url" in away


@pytest.mark.parametrize(
    ("servers", "says"),
    [
        ([ServerHealth("a:1", 0.01, 59, "master", "")], "ok: Redis at a:1 answers within 10 ms"),
        ([ServerHealth("a:1", 0.01, 61, "master", "")], "warning: Redis at a:1: its clock is 61 s ahead of that"),
        ([ServerHealth("a:1", 0.01, -61, "master", "")], "warning: Redis at a:1: its clock is 61 s behind that"),
        ([ServerHealth("a:1", 0.11, 0, "", "")], "warning: Redis at a:1: it took 110 ms, longer than store.timeout"),
        (
            [ServerHealth("a:1", 0, 1, "master", ""), ServerHealth("b:1", 0, -1.5, "master", "")],
            "warning: the clocks of its servers differ by more than 2 s",
        ),
    ],
)
def test_how_servers_are_judged(servers, says):
    (found,) = [f"{one.level}: {one.message}" for one in _servers(servers, Settings())]
    assert found.startswith(says)


async def test_no_model_is_asked_unless_it_is_enabled():
    async with raw(an_alertmanager()) as am, FakeProvider([verdict()]) as provider:
        found = await probed(am.url, llm__base_url=provider.url)
    assert found.one("model") == "ok: not asked: llm.enabled is false, the rules decide"
    assert not provider.requests


async def test_the_model_is_asked_once_about_a_made_up_alert(monkeypatch):
    monkeypatch.setattr("proxy.app.probing.MODEL_DEADLINE", 90.0)  # workers load slowly while the machine is busy
    model = {"llm__enabled": "true", "llm__fallbacks": "openai/spare", "llm__batch_size": 5}
    async with (
        raw(an_alertmanager()) as am,
        FakeProvider([verdict(confidence="low")]) as good,
        FakeProvider([Status(503)]) as bad,
    ):
        answered, failed = await asyncio.gather(
            probed(am.url, **model, llm__base_url=good.url, llm__min_confidence="high", enrichment__budget="1ms"),
            probed(am.url, **model, llm__base_url=bad.url),
        )
    fine, slow = answered.of("model")
    assert fine.startswith("ok: openai/gpt-4o gave a verdict within ")
    assert "longer than enrichment.budget (1ms)" in slow
    assert failed.one("model").startswith("error: openai/gpt-4o has no verdict: unavailable: ")
    assert failed.one("model").endswith("the rules decide in its place, after openai/spare, which were not asked")
    assert (len(good.requests), len(bad.requests)) == (1, 1), "no retries, no fallbacks"
    assert alertname(good.requests[0]) == "DiskWillFillSoon"
    assert an_alert().name not in str(good.requests[0].json)


async def test_a_prompt_that_cannot_be_read_is_an_error():
    async with raw(an_alertmanager()) as am:
        found = await probed(am.url, llm__enabled="true", llm__prompt_file="nowhere.jinja")
    assert found.one("model").startswith("error: openai/gpt-4o: ")
