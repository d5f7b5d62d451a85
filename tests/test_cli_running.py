"""The commands that ask a running proxy, each as the process that a user starts."""

import argparse
import asyncio
import json
import os
import re
import sys
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from fakes import FakeModel, answer, body, exchange, fake_alertmanager, post, posted, settings
from knocking import Doors, hashed, verified

from proxy import cli
from proxy.app import build
from proxy.cli import running
from proxy.cli.client import AdminClient, RequestFailed
from proxy.config import Secret, Web
from proxy.config.kinds import AddressKind
from proxy.decisions.stores.memory import MemoryStore
from proxy.decisions.watch import Watch

GONE = "http://127.0.0.1:9"
"""The port of `discard`, where nobody is."""


class Ran:
    def __init__(self, status, out, err):
        self.status, self.out, self.err = status, out.decode(), err.decode()

    @property
    def json(self):
        return json.loads(self.out)


async def run(*arguments, url=None, **environ):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy", *arguments, *([f"--proxy.url={url}"] if url else [])),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | environ,
    )
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert b"Traceback" not in err, err.decode()
    return Ran(process.returncode, out, err)


@pytest.fixture
async def proxy(alertmanager):
    """A proxy with three alerts: two labelled, of which one is resolved, and one left alone."""
    async with build(settings(alertmanager.url, enrichment__mode="enriched"), model=FakeModel()) as serving:
        await exchange(serving.data_port, post(body(posted(instance="a"), posted("Disk", team="db"))))
        await exchange(serving.data_port, post(body(posted("Watchdog"))))
        await exchange(serving.data_port, post(body(posted(instance="a", ends=-1))))
        yield f"http://127.0.0.1:{serving.admin_port}"


# mode


async def test_the_mode_is_shown_switched_and_reset(proxy):
    shown = await run("mode", "get", url=proxy)
    assert (shown.status, shown.err) == (0, "")
    assert shown.out == "mode    enriched\nsource  as configured\ncanary  all of the alerts\n"
    switched = await run("mode", "set", "transparent", "--for=2h", "--by=Anna", url=proxy)
    assert switched.status == 0
    assert switched.out.startswith("mode    transparent\nsource  switched by Anna from 127.0.0.1 at 20")
    assert re.search(r" UTC, until 20\S+ \S+ UTC; kept in memory$", switched.out, re.MULTILINE)
    reset = await run("mode", "reset", url=proxy)
    assert (reset.status, reset.out) == (0, shown.out)


async def test_all_of_a_switch_reaches_the_proxy(proxy):
    canary = ["--canary.percent=10", "--canary.by=identity", "--canary.matchers", 'team="db"', "--canary.matchers=a=b"]
    switched = await run("mode", "set", "enriched", *canary, "-o", "json", url=proxy, LOGNAME="berta")
    assert switched.json["canary"] == {"percent": 10, "by": "identity", "matchers": ['team="db"', "a=b"]}
    assert (switched.json["switched"]["by"], switched.json["switched"]["until"]) == ("berta", None)
    shown = await run("mode", "get", url=proxy)
    assert 'canary  10 %, drawn by identity, of team="db" or a=b\n' in shown.out
    nobody = await run("mode", "set", "enriched", "--canary.percent=0", "-o", "json", url=proxy)
    assert nobody.json["canary"]["percent"] == 0


async def test_what_the_proxy_refuses_is_told_in_its_words(proxy):
    refused = await run("mode", "set", "enriched", "--for=366d", url=proxy)
    assert (refused.status, refused.out) == (1, "")
    assert refused.err == "for is '366d', want 365d at most; without it the mode holds until the next switch\n"


async def test_a_switch_that_would_divide_several_proxies_is_told(alertmanager):
    async with build(settings(alertmanager.url, alertmanager__replicas="2")) as serving:
        refused = await run("mode", "set", "enriched", url=f"http://127.0.0.1:{serving.admin_port}")
    assert refused.status == 1
    assert refused.err.startswith("there are 2 proxies")
    assert refused.err.count("\n") == 1


async def test_a_switch_can_be_forced_where_somebody_accepts_what_it_costs(proxy, monkeypatch):
    monkeypatch.setattr(Watch, "expected", 2)
    monkeypatch.setattr(MemoryStore, "shared", True)
    refused = await run("mode", "set", "transparent", url=proxy)
    assert (refused.status, refused.err.startswith("only 1 of 2 proxies reach the shared store")) == (1, True)
    assert (await run("mode", "set", "transparent", "--force", url=proxy)).status == 0


# decisions


async def test_decisions_are_a_table(proxy):
    listed = await run("decisions", "list", url=proxy)
    assert (listed.status, listed.err) == (0, "")
    heads, *rows, count = listed.out.splitlines()
    added = [row[heads.index("ADDED") : heads.index("LABELS")].rstrip() for row in rows]
    assert [row[heads.index("LABELS") :] for row in rows] == [
        "Watchdog",
        'Disk{team="db"}',
        'HighLatency{instance="a"}',
    ]
    assert added == ["nothing", *['ai_category="performance", ai_severity="info"'] * 2]
    assert [row.split()[1] for row in rows] == ["firing", "firing", "resolved"]
    assert count == "decisions: 3 of 3"


async def test_decisions_are_filtered_and_limited(proxy):
    listed = await run("decisions", "list", "--limit=1", "--filter", 'alertname!="Watchdog"', url=proxy)
    assert listed.out.splitlines()[-1] == "decisions: 1 of 2; --limit shows more"
    found = await run("decisions", "list", "--filter=team=db", "--filter=alertname=Disk", "-o", "json", url=proxy)
    assert [entry["labels"]["alertname"] for entry in found.json["decisions"]] == ["Disk"]
    nothing = await run("decisions", "list", "--filter=team=web", url=proxy)
    assert (nothing.status, nothing.out) == (0, "decisions: 0 of 0\n")


async def test_one_decision_is_shown_and_forgotten(proxy):
    listed = await run("decisions", "list", "--filter=team=db", "-o", "json", url=proxy)
    (entry,) = listed.json["decisions"]
    shown = await run("decisions", "get", entry["alertmanager_fingerprint"], url=proxy)
    assert shown.status == 0
    assert 'alert         Disk{team="db"}\n' in shown.out
    assert f"fingerprint   {entry['fingerprint']} as it was sent\n" in shown.out
    assert "ai_summary: The model says so.\n" in shown.out
    same = await run("decisions", "get", entry["fingerprint"], "--output=json", url=proxy)
    assert same.json["labels"] == entry["labels"]
    forgotten = await run("decisions", "forget", entry["fingerprint"], url=proxy)
    assert forgotten.status == 0
    assert forgotten.out.startswith("forgotten: 1; ")
    assert "may page again" in forgotten.out
    again = await run("decisions", "forget", entry["fingerprint"], url=proxy)
    assert (again.status, again.err) == (1, f"no decision on an alert with the fingerprint {entry['fingerprint']}\n")


async def test_decisions_are_forgotten_by_filter(proxy):
    forgotten = await run("decisions", "forget", "--filter", 'alertname=~".*"', "-o", "json", url=proxy)
    assert (forgotten.status, forgotten.json) == (0, {"forgotten": 3})


async def test_labels_give_a_terminal_no_orders_and_are_shown_in_any_encoding(alertmanager):
    async with build(settings(alertmanager.url)) as serving:
        url = f"http://127.0.0.1:{serving.admin_port}"
        assert (await run("mode", "set", "enriched", url=url)).status == 0
        await exchange(serving.data_port, post(body(posted("Störung", evil="\x1b[31m\nroot"))))
        listed = await run("decisions", "list", url=url, PYTHONIOENCODING="ascii")
        assert r'St\xf6rung{evil="\x1b[31m\nroot"}' in listed.out
        assert "Störung" in (await run("decisions", "list", url=url, PYTHONIOENCODING="utf-8")).out


def test_the_help_of_forgetting_warns(capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(["decisions", "forget", "--help"])
    assert left.value.code == 0
    assert "may page again" in " ".join(capsys.readouterr().out.split())


# status


async def test_the_status_is_a_report(proxy):
    report = await run("status", url=proxy)
    assert (report.status, report.err) == (0, "")
    head, *lines = report.out.splitlines()
    assert head.endswith("nothing to look at")
    facts = {line[:16].strip(): line[16:] for line in lines}
    assert facts["mode"] == "enriched (as configured)"
    assert facts["alerts"] == "3 known, 2 of them labelled"
    assert facts["store"] == "memory, of this proxy alone, answers"
    assert (await run("status", "-o", "json", url=proxy)).json["decisions"]["living"] == 3


async def test_a_proxy_that_is_not_well_is_reported_with_exit_0():
    async with fake_alertmanager(silent=True) as alertmanager:
        given = settings(alertmanager.url, enrichment__mode="enriched", alertmanager__timeout="4s")
        async with build(given) as serving:
            report = await run("status", url=f"http://127.0.0.1:{serving.admin_port}")
    assert report.status == 0
    assert report.out.splitlines()[0].endswith(": 1 to look at, marked with !")
    assert re.search(r"^! alertmanager +http://\S+, NOT READ yet", report.out, re.MULTILINE)


# How a proxy is found


@pytest.fixture
async def guarded(alertmanager):
    """The address of a proxy that wants the token `s3cret ü`."""
    loaded = settings(alertmanager.url)
    with_token = replace(loaded, web=replace(loaded.web, admin_token=Secret("s3cret ü")))
    async with build(with_token) as serving:
        yield f"127.0.0.1:{serving.admin_port}"


async def test_address_and_token_come_from_the_environment(guarded):
    found = await run("status", WEB_ADMIN_LISTEN_ADDRESS=guarded, WEB_ADMIN_TOKEN="s3cret ü")
    assert found.status == 0


async def test_address_and_token_come_from_the_settings(guarded, tmp_path):
    (tmp_path / "token").write_text("s3cret ü\n")
    file = tmp_path / "config.yaml"
    file.write_text(f"web:\n  admin_listen_address: {guarded}\n  admin_token_file: {tmp_path / 'token'}\n")
    assert (await run("mode", "get", f"--config.file={file}")).status == 0


async def test_the_flag_outranks_the_settings(guarded):
    given = {"WEB_ADMIN_LISTEN_ADDRESS": "127.0.0.1:9", "WEB_ADMIN_TOKEN": "s3cret ü"}
    assert (await run("mode", "get", url=f"http://{guarded}/", **given)).status == 0


@pytest.mark.parametrize(("token", "why"), [("", "wants its web.admin_token"), ("guess", "takes another token than")])
async def test_a_token_that_is_missing_or_wrong_is_told_with_what_to_do(guarded, token, why):
    refused = await run("status", url=f"http://{guarded}", WEB_ADMIN_TOKEN=token)
    assert refused.status == 1
    assert why in refused.err
    assert "WEB_ADMIN_TOKEN_FILE" in refused.err
    assert not token or token not in refused.err


async def test_a_listener_that_is_closed_is_told_with_what_to_do(alertmanager):
    async with build(settings(alertmanager.url, web__admin_listen_address="0.0.0.0:0")) as serving:
        refused = await run("status", url=f"http://127.0.0.1:{serving.admin_port}")
    assert refused.status == 1
    assert "does not let us in: closed: set web.admin_token" in refused.err


async def test_a_proxy_that_is_not_there_is_told_with_what_to_do():
    for given in ({"url": GONE}, {"WEB_ADMIN_LISTEN_ADDRESS": ":9"}):
        failed = await run("status", **given)
        assert (failed.status, failed.out) == (1, "")
        assert failed.err.startswith(f"cannot reach the proxy at {GONE}: Connection refused; ")
        assert "WEB_ADMIN_LISTEN_ADDRESS" in failed.err
        assert failed.err.count("\n") == 1


async def test_alertmanagers_port_is_not_taken_for_the_proxys(alertmanager):
    alertmanager.respond = lambda _: answer("404 Not Found", b"<h1>no</h1>")
    failed = await run("mode", "get", url=alertmanager.url)
    assert failed.status == 1
    assert "does not answer as a proxy's admin listener does (status 404)" in failed.err


async def test_settings_that_are_wrong_are_told(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("web:\n  admin_tokn: x\n")
    failed = await run("status", f"--config.file={file}")
    assert (failed.status, f"{file}:2: unknown key" in failed.err) == (1, True)


async def test_no_proxy_of_the_environments_comes_in_between(proxy):
    assert (await run("mode", "get", url=proxy, http_proxy=GONE, HTTP_PROXY=GONE, ALL_PROXY=GONE)).status == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["mode"],
        ["mode", "set"],
        ["mode", "set", "loud"],
        ["mode", "set", "enriched", "--for=30"],
        ["mode", "set", "enriched", "--canary.percent=101"],
        ["mode", "set", "enriched", "--canary.by=name"],
        ["mode", "set", "enriched", "--canary.matchers=team"],
        ["mode", "get", "--web.admin-token=x"],
        ["mode", "get", "--proxy.url=127.0.0.1:9"],
        ["mode", "get", "--proxy.url=http://user:secret@127.0.0.1:9"],
        ["decisions"],
        ["decisions", "list", "--limit=many"],
        ["decisions", "list", "--filter={}"],
        ["decisions", "get"],
        ["decisions", "get", "12"],
        ["decisions", "forget"],
        ["decisions", "forget", "0" * 16, "--filter=a=b"],
        ["decisions", "forget", "--filter={}"],
        ["status", "-o", "yaml"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_2(arguments, capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(arguments)
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert "usage:" in said
    assert "user:secret" not in said


async def test_a_reader_that_has_seen_enough_costs_no_traceback(proxy):
    command = f"{sys.executable} -m proxy decisions list -o json --proxy.url={proxy} | true; exit ${{PIPESTATUS[0]}}"
    process = await asyncio.create_subprocess_exec("bash", "-c", command, stderr=asyncio.subprocess.PIPE)
    _, err = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, err) == (1, b"")


# The client by itself


@asynccontextmanager
async def far_end(reply):
    """A server that answers everything with `reply`; yields its URL and what it was asked."""
    async with fake_alertmanager(respond=lambda _: reply) as server:
        yield server.url, server.received


async def asked(url, token="", path="/api/v1/status", **options):
    return await asyncio.to_thread(AdminClient(url, token, **options).get, path)


async def test_a_redirect_takes_the_token_nowhere():
    async with (
        far_end(answer("200 OK", b"{}")) as (elsewhere, heard),
        far_end(answer("302 Found", Location=elsewhere)) as (url, _),
    ):
        with pytest.raises(RequestFailed, match="status 302"):
            await asked(url, "s3cret")
    assert heard == []


@pytest.mark.parametrize("content", [b"", b"[]", b"<html>", b"\xff", b"[" * 100_000])
async def test_an_answer_that_is_no_object_is_not_the_proxys(content):
    async with far_end(answer("200 OK", content)) as (url, _):
        with pytest.raises(RequestFailed, match="does not answer as a proxy's admin listener"):
            await asked(url)


async def test_an_answer_that_does_not_come_is_waited_for_so_long():
    async with far_end(None) as (url, _):
        with pytest.raises(RequestFailed, match="no answer in time"):
            await asked(url, timeout=0.2)


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"220 mail\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{",
        b"HTTP/1.1 503 Oops\r\nContent-Length: 9\r\n\r\n{",
    ],
    ids=["nothing", "another protocol", "half an answer", "half a refusal"],
)
async def test_what_is_no_http_is_not_reached(reply):
    async with fake_alertmanager(respond=lambda _: reply) as server:
        looking = asyncio.create_task(asked(server.url, timeout=5))
        await asyncio.sleep(0.2)
        await server.stop()
        with pytest.raises(RequestFailed, match="cannot reach the proxy"):
            await looking


def test_a_token_that_no_header_can_hold_is_not_repeated():
    with pytest.raises(RequestFailed) as failed:
        AdminClient(GONE, "s3cret\nX: y").get("/")
    assert "s3cret" not in str(failed.value)


# Where it looks by itself


@pytest.mark.parametrize(
    ("listens", "url"),
    [
        (":19094", "http://127.0.0.1:19094"),
        ("0.0.0.0:1", "http://127.0.0.1:1"),
        ("[::]:1", "http://[::1]:1"),
        ("10.1.2.3:1", "http://10.1.2.3:1"),
        ("proxy.example:1", "http://proxy.example:1"),
    ],
)
def test_it_asks_where_the_admin_listener_is(listens, url):
    assert running.admin_url(Web(admin_listen_address=AddressKind().parse(listens))) == url


def test_any_port_is_none():
    with pytest.raises(RequestFailed, match="with --proxy"):
        running.admin_url(Web(admin_listen_address=AddressKind().parse("127.0.0.1:0")))


async def test_a_proxy_that_speaks_tls_is_asked_through_it(alertmanager, tmp_path):
    doors = Doors(tmp_path)
    doors.ca.files("command", "command.example")
    file = verified(doors, client_auth_type="VerifyClientCertIfGiven")
    door = {"WEB_ADMIN_CONFIG_FILE": file}
    async with build(settings(alertmanager.url, web__admin_config__file=file)) as serving:
        door["WEB_ADMIN_LISTEN_ADDRESS"] = f"127.0.0.1:{serving.admin_port}"
        trusting = ("mode", "get", f"--proxy.ca-file={doors.ca.file}")
        assert (await run(*trusting, **door)).status == 0
        untrusting = await run("mode", "get", **door)
        assert untrusting.status == 1
        assert "name its CA with --proxy.ca-file" in untrusting.err
        assert "nobody.pem: No such file" in (await run("mode", "get", "--proxy.ca-file=nobody.pem", **door)).err
        probed = await run("check-config", "--probe", "-o", "json", ALERTMANAGER_URL=alertmanager.url, **door)
        assert [one["level"] for one in probed.json if one["check"] == "proxy"] == ["ok"]
    own = (f"--proxy.cert-file={tmp_path / 'command.pem'}", f"--proxy.key-file={tmp_path / 'command.key'}")
    async with build(settings(alertmanager.url, web__admin_config__file=verified(doors))) as serving:
        door["WEB_ADMIN_LISTEN_ADDRESS"] = f"127.0.0.1:{serving.admin_port}"
        assert [(await run(*trusting, *more, **door)).status for more in ((), own)] == [1, 0]


async def test_a_proxy_with_users_wants_the_token_of_commands(alertmanager, tmp_path):
    file = Doors(tmp_path).says(basic_auth_users={"ada": hashed("a")})
    (tmp_path / "token").write_text("t-1")
    given = {"web__admin_config__file": file, "web__admin_token_file": str(tmp_path / "token")}
    async with build(settings(alertmanager.url, **given)) as serving:
        url = f"http://127.0.0.1:{serving.admin_port}"
        refused = await run("mode", "get", url=url)
        assert refused.status == 1
        assert "has users, and wants of commands its web.admin_token" in refused.err
        assert (await run("mode", "get", url=url, WEB_ADMIN_TOKEN="t-1")).status == 0


def test_who_has_no_name_has_none(monkeypatch):
    def none():
        raise KeyError("uid not found")

    monkeypatch.setattr(running.getpass, "getuser", none)
    assert running._by(argparse.Namespace(by=None)) == ""


def test_an_answer_of_another_version_is_told(monkeypatch, capsys):
    monkeypatch.setattr(AdminClient, "get", lambda *_: {"version": "1.0.0"})
    assert cli.main(["status"]) == 1
    assert "try -o json" in capsys.readouterr().err
    assert cli.main(["status", "-o", "json"]) == 0
