"""amtool through the proxy: each of its commands says and does what it says and does without one.

A dialogue is led with two Alertmanagers that nobody else asks, one of them behind a proxy in `transparent` mode. What
only looks is also asked of the second one directly, and must be the same to the byte.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from amtools import NOWHERE, OUTPUTS, Done, Terminal, abilities, amtools, command_of, of_the_same_version, used
from fakes import stamp
from real import alertmanager, proxy, settled
from test_identity import routing

CHANGES = {"alert add", "silence add", "silence expire", "silence import", "silence update"}
LOOKS = {"alert query", "silence query", "config show", "config routes test", "cluster show"}
CLUSTER = ("--cluster.listen-address=127.0.0.1:0", "--cluster.gossip-interval=5ms")
TIMES = {"start": -60, "sooner": 300, "soon": 600, "end": 9000, "later": 9999}
"""What the dialogue calls them, in seconds from now."""
MATCHERS = """ 'alertname=~Disk.*' 'instance="a"' severity!=info """
RENDER = """template render --template.glob='$dir/*.tmpl' --template.text='{{ template "hello" . }}'"""


def in_each_output(*lines: str) -> list[str]:
    return [f"{line} -o {output}" for line in lines for output in OUTPUTS]


DIALOGUE = [
    # alerts
    "alert add DiskFull severity=page instance=a --annotation=summary='full <ü> & more' --start=$start --end=$end",
    "alert add DiskFull severity=page instance=a --annotation=runbook=none --generator-url=http://prometheus.example/?a=b",
    "alert add alertname=DiskSlow severity=info instance=a --start=$start --end=$end",
    "alert add alertname=Ended --start=$start --end=$start",
    "alert add Odd 'text=1,2;3 {x} %2F'",
    "alert add NoTime --start=yesterday",
    *in_each_output("alert query"),
    "alert query DiskFull",
    f"alert query {MATCHERS}",
    "alert query alertname=Odd 'severity=~('",
    "alert query --active --inhibited --silenced --unprocessed",
    "alert query --receiver=bare",
    "alert query --receiver=nobody",
    "alert query '--receiver=('",
    "alert",
    # silences
    f"silence add {MATCHERS} --author=me --comment='a \"comment\" <ü>' --duration=2h",
    *in_each_output("silence query", "alert query --silenced", "alert query"),
    "silence update $silence --duration=4h --comment=other",
    "silence update $silence --start=$soon --end=$later --quiet",
    "silence query",
    f"silence update {NOWHERE} --comment=nobody",
    "silence query --id=$silence",
    f"silence query --id={NOWHERE}",
    "silence add DiskSlow --start=$sooner --end=$end --comment=another --author=you",
    "silence add DiskSlow --comment=",
    "silence add DiskSlow 'severity=~(' --comment=none --author=me",
    "silence add --comment=all --author=me",
    "silence",
    "silence query --quiet",
    "silence query --created-by=you",
    "silence query --within=3h",
    "silence query 'alertname=~Disk.*'",
    "silence query DiskSlow -o json > one.json",
    "silence import $dir/one.json",
    "silence expire $silence",
    "silence import --force --worker=1 < one.json",
    "silence import $dir/broken.json",
    "silence query --quiet DiskSlow",
    "silence expire $silence",
    "silence expire $silence",
    f"silence expire {NOWHERE}",
    "silence expire",
    *in_each_output("silence query", "silence query --expired"),
    "silence query --expired --within=1h --quiet",
    # what Alertmanager is
    *in_each_output("config show", "cluster show"),
    "config",
    "cluster",
    "config routes",
    "config routes show",
    "config routes show --config.file=$dir/alertmanager.json",
    "config routes test ai_severity=critical",
    "config routes test --tree ai_severity=critical",
    "config routes test --verify.receivers=critical ai_severity=critical",
    "config routes test --verify.receivers=critical ai_severity=info",
    "config routes test --config.file=$dir/alertmanager.json ai_severity=noise",
    # what it says of itself and of files
    "check-config $dir/alertmanager.json",
    "check-config $dir/broken.json",
    RENDER,
    f"{RENDER} --template.type=html --template.data=$dir/data.json",
    "help",
    "help silence add",
    "silence query --help",
    "--version",
    "no such command",
    # flags of every command
    "alert query --no-version-check",
    "alert query --verbose",
    "alert query --timeout=10s",
    "alert query --date.format=15:04",
    "alert query --output=json",
    "alert query --http.config.file=$dir/http.json",
    "alert query --http.config.file=$dir/broken.json",
    "check-config --enable-feature=classic-mode $dir/alertmanager.json",
]
SAID_ANYWAY = {"alertmanager.url"}
"""Flags that are in no line, because the terminal says them."""


def at(url: str) -> str:
    return f"--alertmanager.url={url}"


def files(directory: Path, config: dict[str, Any]) -> Path:
    """Write what the dialogue names, and return where."""
    directory.mkdir()
    for name, content in {
        "alertmanager.json": json.dumps(config),
        "broken.json": '{"route": [',
        "http.json": '{"follow_redirects": true}',
        "data.json": '{"receiver": "<me>"}',
        "hello.tmpl": '{{ define "hello" }}to {{ .Receiver }}{{ end }}',
    }.items():
        (directory / name).write_text(content)
    return directory


@pytest.fixture(params=amtools() or [None], ids=lambda path: str(path).replace("/", " ").strip())
def amtool(request: pytest.FixtureRequest) -> str:
    if request.param is None:
        pytest.fail("no amtool on PATH: `make programs` installs it")
    return str(request.param)


def test_each_command_and_each_flag_is_in_the_dialogue(amtool):
    able = abilities(amtool)
    assert len(able) > 12
    used_here = used(DIALOGUE, able)
    assert able.keys() == used_here.keys()
    missing = {command: able[command] - used_here[command] - SAID_ANYWAY for command in able}
    assert {command: flags for command, flags in missing.items() if flags} == {}


def known(line: str, amtool: str) -> bool:
    """Whether an amtool has all the flags of a line: older ones lack some."""
    able = abilities(amtool)
    flags = set().union(*used([line], able).values())
    return flags <= able[""] | able[command_of(line, able)] | {"help", "config.file"}


async def test_amtool_says_and_does_the_same_through_the_proxy(am_binary, door, tmp_path):
    """Each amtool with the Alertmanager of its version."""
    amtool = of_the_same_version(am_binary)
    able = abilities(amtool)
    async with AsyncExitStack() as stack:
        config = routing("http://127.0.0.1:1/")
        alone, behind = await asyncio.gather(
            *(stack.enter_async_context(alertmanager(am_binary, config, tmp_path, cluster=CLUSTER)) for _ in range(2))
        )
        px = await stack.enter_async_context(proxy(behind.url, tmp_path, *door.flags))
        await asyncio.gather(settled(alone, 1), settled(behind, 1))
        times = {name: stamp(seconds) for name, seconds in TIMES.items()}
        direct = Terminal(amtool, [at(alone.url)], files(tmp_path / "direct", config), times)
        through = [at(door.url(px.target)), *door.amtool(tmp_path)]
        proxied = Terminal(amtool, through, files(tmp_path / "proxied", config), times)
        beside = replace(proxied, flags=[at(behind.url)])

        said: dict[str, Done] = {}
        for line in DIALOGUE:
            if not known(line, amtool) or (door.amtool(tmp_path) and "--http.config.file" in line):
                continue  # amtool takes one such file, and the door's is needed
            looks = [beside.look(line)] if command_of(line, able) in LOOKS else []
            expected, found, *seen = await asyncio.gather(direct.type(line), proxied.type(line), *looks)
            assert proxied.comparable(found) == direct.comparable(expected), line
            assert all((done.exit_code, done.stdout) == (found.exit_code, found.stdout) for done in seen), line
            said[line] = found
    # It did talk: of what is there, and of what cannot be.
    assert "DiskFull" in said["alert query DiskFull"].stdout
    assert "DiskFull" not in said["alert query -o json"].stdout  # asked for the last time when it is silenced
    refused = {command_of(line, able) for line, done in said.items() if done.exit_code}
    assert refused > CHANGES - {"silence import"}


async def test_amtool_finds_an_alert_by_what_the_proxy_added(am_binary, door, tmp_path):
    """Below a route prefix."""
    prefix = "/am"
    async with AsyncExitStack() as stack:
        config = routing("http://127.0.0.1:1/")
        am = await stack.enter_async_context(alertmanager(am_binary, config, tmp_path, prefix=prefix))
        enriched = ("--enrichment.mode=enriched", *door.flags)
        px = await stack.enter_async_context(proxy(f"{am.url}{prefix}", tmp_path, *enriched))
        flags = [at(f"{door.url(px.target)}{prefix}"), *door.amtool(tmp_path)]
        terminal = Terminal(of_the_same_version(am_binary), flags, tmp_path)

        async def says(line: str) -> str:
            done = await terminal.type(line)
            assert done.exit_code == 0, done
            return done.stdout

        await says("alert add FromAmtool severity=page --annotation=summary='by hand'")
        assert "FromAmtool" in await says("alert query ai_severity=critical")
        silence = (await says("silence add ai_severity=critical --comment=test --author=me")).strip()
        assert silence in await says("silence query -q")
        assert "FromAmtool" not in await says("alert query")
        await says(f"silence expire {silence}")
        assert "FromAmtool" in await says("alert query")
