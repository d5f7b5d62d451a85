"""Another key for the model, while alerts go on."""

from __future__ import annotations

import json
from functools import partial

import pytest
from aiohttp import ClientSession
from fake_provider import FakeProvider, Status, verdict
from fakes import posted
from whole import Whole

from proxy import config
from proxy.app import build

SETTINGS = """
web: {{listen_address: "127.0.0.1:0", admin_listen_address: "127.0.0.1:0"}}
alertmanager: {{url: "{url}", replicas: 1}}
store: {{url: "memory:"}}
enrichment: {{mode: enriched, repost: false, budget: 8s}}
llm:
  enabled: true
  base_url: {model}
  api_key_file: {key}
  max_retries: 0
  circuit_breaker: {{max_failures: 1}}
"""


def new_key_alone(request):
    return verdict(severity="critical") if request.headers["Authorization"] == "Bearer sk-new" else Status(401)


@pytest.mark.timeout(180)
async def test_a_key_that_is_replaced_is_used_after_a_reload_by_the_same_worker(alertmanager, tmp_path):
    key, file = tmp_path / "key", tmp_path / "config.yaml"
    async with FakeProvider(new_key_alone) as provider:
        key.write_text("sk-old\n")
        file.write_text(SETTINGS.format(url=alertmanager.url, model=provider.url, key=key))
        load = partial(config.load, file, environ={})
        async with build(load().settings, load=load) as running:
            proxy = Whole(running, alertmanager, provider)
            await proxy.ready()
            [alert] = await proxy.post(posted("Before"))
            assert alert["labels"]["ai_severity"] != "critical"
            await proxy.until(lambda status: status["model"]["models"][0]["breaker"] == "open")

            key.write_text("")
            assert await reload(proxy) == ["llm.api_key"], "none is worse than the old one"
            key.write_text("sk-new\n")
            assert await reload(proxy) == []
            [alert] = await proxy.post(posted("After"))
            assert alert["labels"]["ai_severity"] == "critical"
            assert [request.headers["Authorization"] for request in provider.requests] == [
                "Bearer sk-old",
                "Bearer sk-new",
            ]
            assert await proxy.metric("aiproxy_worker_restarts_total") == 0
            told = json.dumps(await proxy.status()) + await proxy.get("/metrics")
            assert "sk-new" not in told
            assert "sk-old" not in told


async def reload(proxy: Whole) -> list[str]:
    """Reload; return the settings that take a restart."""
    async with ClientSession() as client, client.post(f"{proxy.admin}/-/reload") as answered:
        assert answered.status == 200
    return (await proxy.status())["configuration"]["at_next_start"]
