"""Reading the configuration again, by signal and by request, while alerts go on."""

import asyncio
import json
import os
import signal
import sys
from contextlib import asynccontextmanager
from functools import partial

import pytest
from aiohttp import ClientSession
from fakes import FakeModel, body, exchange, post, posted
from structlog.testing import capture_logs

from proxy import config
from proxy.app import build, reload

SETTINGS = """
web: {{listen_address: "127.0.0.1:0", admin_listen_address: "127.0.0.1:0"}}
alertmanager: {{url: "{url}", replicas: 1}}
store: {{url: "memory:"}}
enrichment: {{mode: {mode}, skip: [{skip}]}}
llm: {{timeout: {timeout}, api_key: "{key}"}}
rules: {{{rules}}}
"""


class Proxy:
    def __init__(self, alertmanager, file, running):
        self.alertmanager, self.file, self.running = alertmanager, file, running

    def write(self, mode="enriched", skip="alertname=Nothing", timeout="30s", key="sk-old", rules=""):
        url = self.alertmanager.url
        given = SETTINGS.format(url=url, mode=mode, skip=skip, timeout=timeout, key=key, rules=rules)
        self.file.write_text(given)

    async def reload(self):
        async with ClientSession() as client, client.post(f"{self.admin}/-/reload") as answered:
            return answered.status, await answered.text()

    @property
    def admin(self):
        return f"http://127.0.0.1:{self.running.admin_port}"

    async def get(self, path):
        async with ClientSession() as client, client.get(self.admin + path) as answered:
            return await answered.text()

    async def labels(self, *alerts):
        await exchange(self.running.data_port, post(body(*alerts)))
        return [got["labels"].get("ai_severity") for got in self.alertmanager.posts[-1].alerts]


@pytest.fixture
async def proxy(alertmanager, tmp_path):
    one = Proxy(alertmanager, tmp_path / "config.yaml", None)
    one.write(mode="transparent")
    load = partial(config.load, one.file, environ={})
    async with build(load().settings, model=FakeModel(), load=load) as one.running:
        yield one


async def test_another_mode_holds_for_alerts_not_seen_yet(proxy):
    old = posted("Old")
    assert await proxy.labels(old) == [None]
    proxy.write(mode="enriched")
    assert await proxy.reload() == (200, "OK\n")
    # Old passed unread, and Alertmanager, which says that it holds nothing, cannot tell: it began before.
    assert await proxy.labels(old | {"startsAt": posted(begun=-60)["startsAt"]}, posted("New")) == [None, "info"]


async def test_what_is_labelled_stays_so_when_it_is_left_alone_from_now_on(proxy):
    proxy.write(mode="enriched")
    await proxy.reload()
    assert await proxy.labels(posted("First", team="db")) == ["info"]
    proxy.write(mode="enriched", skip="team=db")
    await proxy.reload()
    assert await proxy.labels(posted("First", team="db"), posted("Second", team="db")) == ["info", None]


async def test_a_mistake_changes_nothing(proxy):
    proxy.write(mode="enrichd")
    status, text = await proxy.reload()
    assert (status, "config.yaml:5" in text, "did you mean enriched?" in text) == (500, True, True)
    assert "aiproxy_config_last_reload_successful 0.0" in await proxy.get("/metrics")
    status = json.loads(await proxy.get("/api/v1/status"))
    assert (status["mode"], len(status["configuration"]["problems"])) == ("transparent", 1)
    before = status["configuration"]["read_at"]
    proxy.write(mode="transparent")
    assert (await proxy.reload())[0] == 200
    status = json.loads(await proxy.get("/api/v1/status"))
    assert (status["configuration"]["problems"], status["configuration"]["read_at"] > before) == ([], True)
    assert "aiproxy_config_last_reload_successful 1.0" in await proxy.get("/metrics")


async def test_another_table_of_rules_holds_for_alerts_not_seen_yet(proxy, tmp_path):
    table = tmp_path / "my-rules.yaml"
    text = (
        "version: 1\noverrides: {First: {severity: SEVERITY, force: true}, Second: {severity: SEVERITY, force: true}}"
    )
    table.write_text(text.replace("SEVERITY", "critical"))
    seen = [json.loads(await proxy.get("/api/v1/status"))]
    proxy.write(rules=f"file: {table}")
    with capture_logs() as logs:
        assert await proxy.reload() == (200, "OK\n")
    assert "other rules decide on new alerts" in [entry["event"] for entry in logs]
    assert [entry for entry in logs if "settings" in entry] == [], "it takes no restart"
    seen.append(json.loads(await proxy.get("/api/v1/status")))
    assert await proxy.labels(posted("First")) == ["critical"]

    table.write_text(text.replace("SEVERITY", "noise"))
    await proxy.reload()
    assert await proxy.labels(posted("First"), posted("Second")) == ["critical", "noise"]
    seen.append(json.loads(await proxy.get("/api/v1/status")))
    assert len({status["rules"]["hash"] for status in seen}) == 3
    assert len({status["replicas"]["agreement"] for status in seen}) == 3

    table.write_text("version: 2")
    status, answer = await proxy.reload()
    assert (status, "my-rules.yaml:1: unknown version" in answer) == (500, True)
    assert await proxy.labels(posted("Second", instance="b")) == ["noise"]
    assert json.loads(await proxy.get("/api/v1/status"))["rules"] == seen[2]["rules"]


def gone(link, good):
    link.unlink()


def a_directory(link, good):
    link.unlink()
    link.mkdir()


def cut_off(link, good):
    good.write_text(good.read_text()[:-8])


def not_text(link, good):
    good.write_bytes(b"\xff\xfe")


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (gone, "No such file or directory"),
        (a_directory, "Is a directory"),
        (cut_off, "my-rules.yaml:2: not YAML"),
        (not_text, "it is not text"),
    ],
)
async def test_a_table_that_cannot_be_used_leaves_the_last_good_one(proxy, tmp_path, broken, why):
    (tmp_path / "..first").mkdir()
    good, link = tmp_path / "..first" / "my-rules.yaml", tmp_path / "my-rules.yaml"
    good.write_text("version: 1\noverrides: {First: {severity: noise}, Second: {severity: noise}}")
    link.symlink_to(good)
    proxy.write(rules=f"file: {link}")
    assert (await proxy.reload())[0] == 200
    broken(link, good)
    status, answer = await proxy.reload()
    assert (status, why in answer) == (500, True), answer
    assert "aiproxy_config_last_reload_successful 0.0" in await proxy.get("/metrics")
    assert why in str(json.loads(await proxy.get("/api/v1/status"))["configuration"]["problems"])
    assert await proxy.labels(posted("First")) == ["noise"]


async def test_a_table_is_swapped_as_kubernetes_does_it(proxy, tmp_path):
    for name, severity in (("..first", "noise"), ("..second", "critical")):
        (tmp_path / name).mkdir()
        table = f"version: 1\noverrides: {{A: {{severity: {severity}}}, B: {{severity: {severity}}}}}"
        (tmp_path / name / "my-rules.yaml").write_text(table)
    (tmp_path / "..data").symlink_to("..first")
    (tmp_path / "my-rules.yaml").symlink_to("..data/my-rules.yaml")
    proxy.write(rules=f"file: {tmp_path / 'my-rules.yaml'}")
    await proxy.reload()
    assert await proxy.labels(posted("A")) == ["noise"]
    (tmp_path / "..new").symlink_to("..second")
    (tmp_path / "..new").rename(tmp_path / "..data")
    await proxy.reload()
    assert await proxy.labels(posted("A"), posted("B")) == ["noise", "critical"]


async def test_a_decision_is_shown_with_what_the_table_says_now(proxy, tmp_path):
    table = tmp_path / "my-rules.yaml"
    proxy.write(rules=f"file: {table}")
    table.write_text("version: 1\noverrides: {DiskFull: {severity: noise}}")
    await proxy.reload()
    await proxy.labels(posted("DiskFull"))
    table.write_text("version: 1\n\noverrides: {DiskFull: {severity: info}}")
    await proxy.reload()
    [listed] = json.loads(await proxy.get("/api/v1/decisions"))["decisions"]
    found = json.loads(await proxy.get(f"/api/v1/decisions/{listed['fingerprint']}"))
    assert found["added"]["labels"]["ai_severity"] == "noise"
    now = found["rules_now"]
    assert now["hash"] == json.loads(await proxy.get("/api/v1/status"))["rules"]["hash"]
    assert now["severity"] == {"is": "info", "by": "override", "at": f"{table}:3"}
    assert (now["category"]["is"], now["category"]["by"]) == ("storage", "filesystem-full")


async def test_a_reload_that_begins_later_ends_later(proxy, monkeypatch):
    read, begun, gate = reload.read_rules, asyncio.Event(), asyncio.Event()

    async def slow(settings):
        begun.set()
        await gate.wait()
        return await read(settings)

    monkeypatch.setattr(reload, "read_rules", slow)
    proxy.write(mode="enriched")
    first = asyncio.create_task(proxy.running.reload())
    await begun.wait()  # it has read the file
    monkeypatch.setattr(reload, "read_rules", read)
    proxy.write(mode="transparent_with_recommendations")
    second = asyncio.create_task(proxy.running.reload())
    await asyncio.wait({second}, timeout=0.1)
    gate.set()
    await asyncio.gather(first, second)
    assert json.loads(await proxy.get("/api/v1/status"))["mode"] == "transparent_with_recommendations"


async def test_what_takes_a_restart_is_named(proxy):
    proxy.write(mode="enriched", timeout="10s")
    with capture_logs() as logs:
        await proxy.reload()
    assert [entry["settings"] for entry in logs if "settings" in entry] == ["llm.timeout"]
    assert json.loads(await proxy.get("/api/v1/status"))["configuration"]["at_next_start"] == ["llm.timeout"]


async def test_a_file_of_context_takes_a_restart(proxy):
    text = proxy.file.read_text()
    proxy.file.write_text(text.replace("llm: {", "llm: {context_file: context.yaml, "))
    await proxy.reload()
    assert json.loads(await proxy.get("/api/v1/status"))["configuration"]["at_next_start"] == ["llm.context_file"]


async def test_another_key_is_named_and_not_shown(proxy):
    proxy.write(mode="transparent", key="sk-new")
    with capture_logs() as logs:
        await proxy.reload()
    assert [entry["settings"] for entry in logs if "settings" in entry] == ["llm.api_key"]
    assert "sk-" not in str(logs)


async def test_another_admin_token_holds_at_once(proxy):
    text = proxy.file.read_text()
    proxy.file.write_text(text.replace("web: {", 'web: {admin_token: "one", '))
    assert (await proxy.reload())[0] == 200
    assert (await proxy.reload())[0] == 401
    proxy.file.write_text(text.replace("web: {", 'web: {admin_token: "two", '))
    for token, status in (("two", 401), ("one", 200), ("one", 401), ("two", 200)):
        async with (
            ClientSession(headers={"Authorization": f"Bearer {token}"}) as client,
            client.post(f"{proxy.admin}/-/reload") as answered,
        ):
            assert answered.status == status


async def test_a_switch_outranks_what_is_read_again(proxy):
    async with (
        ClientSession() as client,
        client.post(f"{proxy.admin}/enrichment/mode", json={"mode": "transparent_with_recommendations"}) as answered,
    ):
        assert answered.status == 200
    proxy.write(mode="enriched")
    await proxy.reload()
    assert '"mode": "transparent_with_recommendations"' in await proxy.get("/enrichment/mode")
    async with ClientSession() as client, client.post(f"{proxy.admin}/enrichment/mode/reset") as answered:
        assert (await answered.json())["mode"] == "enriched"


async def test_a_page_of_another_origin_cannot_reload(proxy):
    async with (
        ClientSession(headers={"Origin": "http://elsewhere.example"}) as client,
        client.post(f"{proxy.admin}/-/reload") as answered,
    ):
        assert answered.status == 403


@asynccontextmanager
async def process(*flags):
    one = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy", *flags), stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        yield one
    finally:
        one.terminate()
        await one.communicate()


async def heard(one, text):
    """Read the log until a line has `text`; return that line."""
    async with asyncio.timeout(30):
        async for line in one.stderr:
            if text in line.decode():
                return line.decode()
    raise AssertionError(f"ended without saying {text!r}")


async def test_a_hangup_reads_it_again_and_a_mistake_does_not_end_the_process(alertmanager, tmp_path):
    one = Proxy(alertmanager, tmp_path / "config.yaml", None)
    one.write(mode="transparent")
    async with process(f"--config.file={one.file}") as serving:
        await heard(serving, "serves")
        one.write(mode="wrong")
        os.kill(serving.pid, signal.SIGHUP)
        assert "unknown value" in await heard(serving, "the last good one holds")
        one.write(mode="enriched")
        os.kill(serving.pid, signal.SIGHUP)
        assert "enrichment.mode" in await heard(serving, "configuration read anew")
