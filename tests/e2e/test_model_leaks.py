"""A key, and passwords, tokens and addresses in an alert, are found nowhere that they do not belong, whatever fails.

What is allowed: the key in the credentials of a request to the provider. The labels of an alert, as the sender gave
them, in the decision on it (they are what it is known by): in the decision store and in the admin API's answer about
decisions. An address in a label that the whole class has, in what a model says and so in the cache, as
docs/reference/prompt.md has it. What a provider has said, in the question that asks it again. And all of it in what
goes on to Alertmanager, who gets the alert as it came.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog
from fake_provider import Answer, FakeProvider, Hang, Request, Reset, Status, Text, verdict
from fakes import answer, body, exchange, post, posted, status_of
from redis_servers import redis_server
from whole import Whole, added, alertname, labelling, whole

from proxy.alert import Alert
from proxy.classification.prompts import Prompts
from proxy.classification.rules import Rules
from proxy.decisions.decider import Decider
from proxy.decisions.stores.redis import RedisStore
from proxy.decisions.stores.sqlite import SqliteStore
from proxy.gateway.alerts import Item
from proxy.gateway.pipeline import Pipeline
from proxy.telemetry import configure_logging

KEY = "sk-canarykey0123456789abcdef"
IN_LABELS = {
    "db_password": "canarypw1",
    "note": "login with password=canarypw2 token=canarytoken2",
    "hook": "https://canaryuser3:canarypw3@hooks.example/x",
    "instance": "10.99.88.77:9100",
}
SHARED_ADDRESSES = {"owner": "canarymail4@corp.example", "cluster": "10.99.88.66"}
IN_ANNOTATIONS = {
    "summary": "canarymail5@corp.example cannot log in with password: canarypw5 from 10.99.88.55",
    "description": "Authorization: Bearer canarytoken6abcdef0123456789",
    "api_key": "canarykey7",
    "runbook": "canaryrunbook8",
}
URL = "http://canaryuser9:canarypw9@prometheus.example/graph?token=canarytoken9"

LABELS = ("canarypw1", "canarypw2", "canarytoken2", "canaryuser3", "canarypw3", "10.99.88.77")
ADDRESSES = ("canarymail4", "10.99.88.66")
NEVER = (
    *("canarykey0123456789", "canarymail5", "canarypw5", "10.99.88.55", "canarytoken6", "canarykey7"),
    *("canaryrunbook8", "canaryuser9", "canarypw9", "canarytoken9"),
)
"""Those that are allowed nowhere."""
ALL = (*LABELS, *ADDRESSES, *NEVER)


def carrying(name: str) -> dict[str, Any]:
    """An alert with all of them."""
    one = posted(name, severity="warning", **IN_LABELS, **SHARED_ADDRESSES)
    return one | {"annotations": dict(IN_ANNOTATIONS), "generatorURL": URL}


def echoed(request: Request) -> str:
    """All that a provider has heard, and may say again."""
    return f"{request.key} {dict(request.headers)} {request.prompt}"


def echo(request: Request) -> Answer:
    said = echoed(request)
    failures: dict[str, Answer] = {
        "Refused": Status(401, body=json.dumps({"error": {"message": f"Incorrect API key provided: {said}"}})),
        "BadRequest": Status(400, body=json.dumps({"error": {"message": f"cannot read {said}", "type": "invalid"}})),
        "Full": Status(429, {"Retry-After": "3600"}, json.dumps({"error": {"message": said}})),
        "Broken": Status(500, {"Retry-After": "3600"}, said),
        "Silent0": Hang(),
        "Silent": Hang(),
        "Cut": Reset(),
        "Prose": Text(said),
        "Wrong": verdict(severity=said),
        "Fine": verdict(summary="SECRET_1 EMAIL_1 EMAIL_2 IP_1 IP_2 IP_3", recommendations=["SECRET_2, SECRET_3"]),
        "Repeats": verdict(summary=json.dumps(request.json["messages"])[-900:], recommendations=["SECRET_4"]),
    }
    return failures.get(alertname(request), verdict())


BUGS = ("BugReading", "BugKnowing", "BugRuling", "BugRendering", "BugInserting", "BugKeeping")


def broken_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the proxy bugs, each about one alertname, and each with all that it knows in its message."""

    def breaks(owner: type, method: str, name: str, *, subject: int = 0) -> None:
        sound = getattr(owner, method)

        def broken(self: Any, *arguments: Any, **named: Any) -> Any:
            about = (self, *arguments)[subject]
            if name in repr(about) or name in str(getattr(about, "_text", "")):
                secret = f"{about!r} {IN_LABELS} {IN_ANNOTATIONS} {URL} {KEY}"
                raise ValueError(secret)
            return sound(self, *arguments, **named)

        monkeypatch.setattr(owner, method, broken)

    breaks(Decider, "known", "BugKnowing", subject=1)
    breaks(Rules, "classify", "BugRuling", subject=1)
    breaks(Prompts, "render", "BugRendering", subject=1)
    for store in (SqliteStore, RedisStore):
        breaks(store, "claim", "BugKeeping", subject=1)
    reading, inserting, running = Item.read, Item.insertions, Pipeline.run

    def read(self: Item) -> Alert:
        alert = reading(self)
        if alert.name == "BugReading":
            raise KeyError(IN_LABELS["note"], KEY)
        return alert

    def insertions(self: Item, *arguments: Any) -> Any:
        if reading(self).name == "BugInserting":
            raise TypeError(IN_ANNOTATIONS, URL, KEY)
        return inserting(self, *arguments)

    async def run(self: Pipeline, content: bytes) -> Any:
        if b"BugAnywhere" in content:
            raise RuntimeError(content, KEY)
        return await running(self, content)

    monkeypatch.setattr(Item, "read", read)
    monkeypatch.setattr(Item, "insertions", insertions)
    monkeypatch.setattr(Pipeline, "run", run)


@pytest.fixture
def logs() -> Iterator[dict[str, io.StringIO]]:
    """Everything that any library logs, at every level, in each of the formats."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    said, handlers = {form: io.StringIO() for form in ("logfmt", "json", "console")}, []
    for form, stream in said.items():
        configure_logging("debug", form, stream)
        handlers += root.handlers
    root.handlers[:] = handlers
    yield said
    root.handlers[:], root.level = before, level
    structlog.reset_defaults()


def check_clean(what: str | bytes, where: str, canaries: tuple[str, ...] = ALL) -> None:
    text = what.decode("utf-8", "surrogateescape") if isinstance(what, bytes) else what
    text = re.sub(r"[\s│]", "", text)  # which a console wraps lines with
    found = [canary for canary in canaries if canary in text]
    assert not found, f"{found} in {where}: …{text[max(0, text.index(found[0]) - 400) :][:600]}"


def workers() -> list[int]:
    """The processes of model workers that this one has started."""
    found = []
    for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        with contextlib.suppress(FileNotFoundError):
            if b"proxy.classification.worker" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(int(child))
    return found


def check_process(pid: int) -> None:
    """Fail unless nobody sees what a worker prints, nor its key from outside."""
    process = Path(f"/proc/{pid}")
    assert {str((process / "fd" / stream).readlink()) for stream in "012"} == {"/dev/null"}
    for name in ("cmdline", "environ"):
        check_clean((process / name).read_bytes(), name)


async def asked_everything(proxy: Whole) -> dict[str, str]:
    """Return what the admin API says, refusals included, but for what it says of decisions."""
    said = {}
    async with aiohttp.ClientSession() as client:
        for path in ("/metrics", "/api/v1/status", "/enrichment/mode", "/-/ready", "/-/healthy", "/nothing"):
            async with client.get(proxy.admin + path) as answered:
                said[path] = f"{dict(answered.headers)} {await answered.text()}"
        for path in ("/enrichment/mode", "/api/v1/decisions/forget", "/-/reload"):
            async with client.post(proxy.admin + path, data=b"{") as answered:
                said[f"POST {path}"] = f"{answered.status} {await answered.text()}"
    return said


async def lose_the_worker(proxy: Whole) -> None:
    """Let the worker die in the middle of a call, and wait for the next one."""
    dying = asyncio.create_task(proxy.post(carrying("Silent0")))
    await proxy.provider.request(0)
    for pid in workers():
        os.kill(pid, signal.SIGKILL)
    await dying
    await proxy.until(lambda status: status["model"]["state"] != "ready")
    await proxy.ready()


async def go_wrong(proxy: Whole) -> None:
    """Let everything fail that can."""
    failing = ("Refused", "BadRequest", "Full", "Broken", "Silent", "Cut", "Prose", "Wrong", "Fine", "Repeats")
    sent = [carrying(name) for name in (*failing, *BUGS)]
    got = await proxy.post(*sent)
    for before, after in zip(sent, got, strict=True):
        ours = added(before, after)
        check_clean(json.dumps(ours.labels), "labels")
        check_clean(json.dumps(ours.annotations), "annotations", (*LABELS, *NEVER))
    async with asyncio.timeout(20):  # the call that hangs is the last one to end
        while not re.search(r'seconds_count{outcome="timeout"} [1-9]', await proxy.get("/metrics")):
            await asyncio.sleep(0.05)
    again = {one["labels"]["alertname"]: one["annotations"] for one in await proxy.post(*sent)}
    for name in ("Fine", "Repeats"):
        assert again[name]["ai_model"] == "gpt-4o"
        check_clean(json.dumps({k: v for k, v in again[name].items() if k.startswith("ai_")}), name, (*LABELS, *NEVER))
    await exchange(proxy.running.data_port, post(body(carrying("BugAnywhere"))))
    # Alertmanager refuses, and is gone.
    proxy.alertmanager.respond = lambda _: answer("400 Bad Request", b'{"code":400}')
    assert status_of(await exchange(proxy.running.data_port, post(body(carrying("Unwelcome"))))) == 400
    await proxy.alertmanager.stop()
    gone = await exchange(proxy.running.data_port, post(body(carrying("Undeliverable"))))
    assert status_of(gone) == 502
    check_clean(gone, "the body of a 502")


def files(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.mark.timeout(90)
@pytest.mark.parametrize("kind", ["sqlite", "redis"])
async def test_canaries_are_found_nowhere_through_every_failure(kind: str, logs, tmp_path, monkeypatch, capfd):
    broken_parts(monkeypatch)
    kept = tmp_path / "kept"
    with redis_server(tmp_path) as redis:
        store = redis.url if kind == "redis" else "sqlite:"
        flags = {"store__url": store, "storage__path": str(kept), "alertmanager__replicas": "1"}
        async with (
            FakeProvider(echo) as provider,
            whole(
                provider,
                key=KEY,
                llm__timeout="5s",
                llm__max_retries="1",
                llm__concurrency="32",
                llm__circuit_breaker__min_calls="2",
                llm__circuit_breaker__failure_rate="10",
                enrichment__repost="true",
                **flags,
            ) as proxy,
        ):
            await proxy.ready()
            check_process(workers()[0])
            await proxy.until(labelling)
            await lose_the_worker(proxy)
            await go_wrong(proxy)
            admin = await asked_everything(proxy)
            decisions = await proxy.get("/api/v1/decisions?limit=1000")
            if kind == "redis":
                with redis.client() as client:
                    client.config_set("rdbcompression", "no")
                    client.save()
                    verdicts = [client.get(key) for key in client.keys("aiproxy:v:*")]
                assert verdicts
                check_clean(str(verdicts), "the cache in Redis", (*LABELS, *NEVER))
    for path, said in admin.items():
        check_clean(said, path)
    check_clean(decisions, "the admin API's decisions", NEVER)
    assert all(canary in decisions for canary in LABELS), "they are looked for in the right way"
    assert len(provider.requests) >= 12
    for request in provider.requests:
        assert request.key == KEY
        # A model that gave no verdict is asked again with what it said itself.
        told = json.dumps([one for one in request.json["messages"] if one["role"] != "assistant"])
        check_clean(told, f"the prompt about {alertname(request)}")
        assert "SECRET_1" in told
        check_clean(str({k: v for k, v in request.headers.items() if k != "Authorization"}), "headers")
    for form, stream in logs.items():
        said = stream.getvalue()
        assert said.count("a bug") >= len(BUGS) - 1, form
        for part in ("BugKnowing", "a decision is not kept", "model worker lost", "not asked for a while"):
            assert part in said, (form, part)
        check_clean(said, f"the log as {form}")
    out, err = capfd.readouterr()
    check_clean(out + err, "what was printed")
    held = files(kept) | (files(redis.home) if kind == "redis" else {})
    found = b"".join(held.values())
    assert any(b"canarypw2" in content for content in held.values()), "decisions are known by their labels"
    for name, content in held.items():
        check_clean(content, name, (*LABELS, *NEVER) if name.startswith("verdicts.db") else NEVER)
    assert b"[masked]" in found, "what a model said of secrets is kept"
