"""A proxy as it is put together: starts, ends, models that cannot be used, listeners."""

import asyncio
import re
import socket
import subprocess
import sys
from datetime import timedelta

import pytest
from aiohttp import ClientSession
from fakes import FakeModel, body, exchange, post, posted, settings, status_of

from proxy import app
from proxy.config import Address
from proxy.decisions import keeper, living
from proxy.decisions.stores.sqlite import SqliteStore
from proxy.decisions.watch import Watch


async def get(port, path):
    async with ClientSession() as client, client.get(f"http://127.0.0.1:{port}{path}") as answered:
        return answered.status, await answered.text()


async def test_it_starts_and_is_ready_while_alertmanager_is_away(unused_tcp_port):
    async with app.build(settings(f"http://127.0.0.1:{unused_tcp_port}")) as running:
        assert (await get(running.admin_port, "/-/ready"))[0] == 200
        assert (await get(running.admin_port, "/-/healthy"))[0] == 200


async def test_port_0_takes_a_free_port_and_the_banner_names_it(alertmanager, capsys):
    async with app.build(settings(alertmanager.url)) as running:
        banner = capsys.readouterr().out
    assert f"listen=127.0.0.1:{running.data_port}" in banner
    assert f"admin=127.0.0.1:{running.admin_port}" in banner
    assert running.data_port != running.admin_port


async def test_port_0_on_all_interfaces_is_one_port(alertmanager):
    async with app.build(settings(alertmanager.url, web__listen_address=":0")) as running:
        for host in ("127.0.0.1", *(["::1"] if socket.has_dualstack_ipv6() else [])):
            _, writer = await asyncio.open_connection(host, running.data_port)
            writer.close()
            await writer.wait_closed()


async def test_a_port_that_is_taken_on_all_interfaces_is_named(alertmanager):
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"web.listen_address: cannot listen on :{port}"):
            async with app.build(settings(alertmanager.url, web__listen_address=f":{port}")):
                pass


@pytest.mark.parametrize("which", ["web.listen_address", "web.admin_listen_address"])
async def test_a_port_that_is_taken_is_named_with_its_setting(alertmanager, which):
    taken = f"127.0.0.1:{alertmanager.port}"
    with pytest.raises(OSError, match=re.escape(f"{which}: cannot listen on {taken}")):
        async with app.build(settings("http://127.0.0.1:9", **{which: taken})):
            pass


async def test_a_model_without_a_key_is_loud_and_alerts_flow_by_the_rules(alertmanager, capsys):
    given = settings(alertmanager.url, llm__enabled="true", enrichment__mode="enriched")
    async with app.build(given) as running:
        said = capsys.readouterr().out
        await exchange(running.data_port, post(body(posted(severity="page"))))
        metrics = (await get(running.admin_port, "/metrics"))[1]
    assert "error" in said
    assert "the model cannot be used, the rules decide alone" in said
    assert "no API key; set LLM_API_KEY" in said
    assert alertmanager.posts[0].alerts[0]["labels"]["ai_severity"] == "critical"
    assert "aiproxy_model_enabled 1.0" in metrics
    assert "aiproxy_model_usable 0.0" in metrics


async def test_a_model_that_is_off_starts_no_worker(alertmanager):
    async with app.build(settings(alertmanager.url, enrichment__mode="enriched")) as running:
        assert '"state": "disabled"' in (await get(running.admin_port, "/api/v1/status"))[1]


async def test_a_stop_answers_what_has_come_in(alertmanager):
    model = FakeModel([None])
    async with app.build(settings(alertmanager.url, enrichment__mode="enriched"), model=model) as running:
        pending = asyncio.create_task(exchange(running.data_port, post(body(posted()))))
        while not model.asked:
            await asyncio.sleep(0.01)
        # Longer than aiohttp itself waits for a handler when it shuts down.
        asyncio.get_running_loop().call_later(2.5, model.release.set)
    assert status_of(await pending) == 200
    assert "ai_severity" in alertmanager.posts[0].alerts[0]["labels"]


async def test_what_was_decided_last_is_kept_when_it_stops(alertmanager, monkeypatch, tmp_path):
    monkeypatch.setattr(keeper, "GATHER", 60.0)
    given = settings(alertmanager.url, enrichment__mode="enriched", store__url=f"sqlite:{tmp_path}/decisions.db")
    async with app.build(given) as running:
        async with asyncio.timeout(5):
            while '"recovered": true' not in (await get(running.admin_port, "/api/v1/status"))[1]:
                await asyncio.sleep(0.02)
        await exchange(running.data_port, post(body(posted(severity="critical"))))
    async with SqliteStore(tmp_path / "decisions.db") as store:
        [kept] = [kept async for some in store.load() for kept in some]
    assert kept.decision.labels["ai_severity"] == "critical"


async def test_a_task_that_has_died_spoils_no_stop(alertmanager, monkeypatch, capsys):
    async def dies(_):
        raise ZeroDivisionError

    monkeypatch.setattr(Watch, "run", dies)
    async with app.build(settings(alertmanager.url, enrichment__mode="enriched")) as running:
        await exchange(running.data_port, post(body(posted(severity="critical"))))
        assert "a bug: something that should go on has ended" in capsys.readouterr().out
    assert alertmanager.posts[0].alerts[0]["labels"]["ai_severity"] == "critical"


async def test_decisions_end_when_their_alerts_have(alertmanager, monkeypatch):
    monkeypatch.setattr(keeper, "SWEEP", 0.02)
    monkeypatch.setattr(living, "AFTER_LAST_SIGN", timedelta(seconds=0.3))
    async with app.build(settings(alertmanager.url, enrichment__mode="enriched")) as running:
        await exchange(running.data_port, post(body(posted(ends=0.1))))
        assert '"living": 1' in (await get(running.admin_port, "/api/v1/status"))[1]
        async with asyncio.timeout(5):
            while '"living": 0' not in (await get(running.admin_port, "/api/v1/status"))[1]:
                await asyncio.sleep(0.05)


async def test_no_task_outlives_the_proxy(alertmanager):
    before = asyncio.all_tasks()
    async with app.build(
        settings(alertmanager.url, enrichment__mode="enriched", enrichment__budget="50ms"), model=FakeModel([None])
    ) as running:
        await exchange(running.data_port, post(body(posted())))
    await asyncio.sleep(0)
    assert {task for task in asyncio.all_tasks() - before if "Alertmanager" not in repr(task)} == set()


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("", False), ("0.0.0.0", False), ("10.0.0.1", False)],
)
def test_only_loopback_is_loopback(host, loopback):
    assert Address(host, 1).is_loopback is loopback


def test_the_serving_process_never_imports_litellm():
    """In a process of its own: this one may have imported anything."""
    code = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, "tests")
from fakes import body, exchange, fake_alertmanager, post, posted, settings
from proxy import app
async def main():
    async with fake_alertmanager() as am:
        given = settings(am.url, enrichment__mode="enriched", enrichment__budget="10ms",
            llm__enabled="true", llm__provider="ollama", llm__base_url="http://127.0.0.1:1")
        async with app.build(given) as running:
            await exchange(running.data_port, post(body(posted())))
            assert am.posts[0].alerts[0]["labels"]["ai_severity"]
asyncio.run(main())
print("imported:", sorted({"litellm", "openai", "httpx", "tiktoken"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.endswith("imported: []\n")
