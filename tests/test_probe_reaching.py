"""`check-config --probe`: whether Alertmanager is reached, and it alone."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
from certificates import Authority
from fakes import answer
from ports import free_port
from probing import Findings, an_alertmanager, probed, raw, status, told
from yarl import URL

from proxy.app.probing.balancing import balanced
from proxy.app.probing.upstream import ASKED_FOR

USER = {"ALERTMANAGER_BASIC_AUTH_USERNAME": "user", "ALERTMANAGER_BASIC_AUTH_PASSWORD": "hunter2"}
LOGIN = "<!doctype html><html><title>Sign in</title></html>"
NOT_FOUND = told("404 page not found", "404 Not Found")


def looked_no_further(found: Findings) -> bool:
    return found.of("alertmanager")[-1].startswith("warning: not looked at therefore: cluster, load balancer")


async def test_an_alertmanager_that_is_fine_is_fine():
    async with raw(an_alertmanager()) as am:
        found = await probed(am.url)
    assert found.fine
    assert found.one("alertmanager") == f"ok: {am.url}: Alertmanager 0.31.0 answers"


async def test_it_asks_with_gets_alone():
    async with raw(an_alertmanager()) as am:
        await probed(am.url, enrichment__mode="enriched")
    assert {head.split(" ")[0] for head in am.asked} == {"GET"}
    assert {head.split(" ")[1] for head in am.asked} == {f"/api/v2/{path}" for path in ("status", "alerts", "silences")}


@pytest.mark.parametrize(
    ("version", "old"), [("0.21.0", True), ("0.22.0", False), ("v0.9.1", True), ("1.0.0", False), ("", False)]
)
async def test_a_version_before_0_22_is_a_warning(version, old):
    async with raw(an_alertmanager(lambda: status(version))) as am:
        found = await probed(am.url)
    assert any("is older than 0.22" in one for one in found.of("alertmanager")) is old
    assert not found.errors


@pytest.mark.parametrize(
    ("respond", "says"),
    [
        pytest.param(lambda _: told(LOGIN), "a web page, as a login in front of", id="a login page"),
        pytest.param(lambda _: told([]), "it is no Alertmanager's answer", id="JSON of something else"),
        pytest.param(lambda _: told({"status": "ok"}), "it is no Alertmanager's answer", id="another program's status"),
        pytest.param(lambda _: told("[" * 100_000), "it is no Alertmanager's answer", id="JSON without an end"),
        pytest.param(lambda _: told("", "401 Unauthorized"), "401, it wants credentials", id="401"),
        pytest.param(lambda _: told("", "403 Forbidden"), "403, it wants credentials", id="403"),
        pytest.param(lambda _: told("", "503 Service Unavailable"), "503; what answers there has no", id="503"),
        pytest.param(
            lambda _: told("Client sent an HTTP request to an HTTPS server.\n", "400 Bad Request"),
            "it speaks TLS; want https:// in alertmanager.url",
            id="TLS without TLS",
        ),
        pytest.param(lambda _: told("", "418 Teapot"), "418, it should answer 200", id="418"),
        pytest.param(lambda _: b"-ERR unknown command\r\n", "the answer is no HTTP", id="not HTTP"),
        pytest.param(lambda _: b"", "does not answer as a web server does", id="no answer"),
        pytest.param(lambda _: NOT_FOUND, "404, and no Alertmanager under the usual prefixes", id="404"),
    ],
)
async def test_what_answers_in_its_place_is_told_apart(respond, says):
    async with raw(respond) as am:
        found = await probed(am.url)
    assert found.of("alertmanager")[0].startswith("error: ")
    assert says in found.of("alertmanager")[0]
    assert looked_no_further(found)
    assert found.of("store"), "what does not need Alertmanager was asked all the same"


async def test_credentials_that_are_refused_are_named_by_their_settings():
    async with raw(lambda _: told("", "401 Unauthorized")) as am:
        found = await probed(am.url, environ=USER)
    assert "it refuses our credentials: check alertmanager.authorization" in found.of("alertmanager")[0]
    assert "Authorization: Basic " in am.asked[0]


async def test_nobody_there_and_an_unknown_name():
    here = await probed(f"http://127.0.0.1:{free_port()}")
    assert "is Alertmanager running, and is alertmanager.url its address?" in here.of("alertmanager")[0]

    async def resolve(host, port):
        raise OSError(-2, "Name or service not known")

    nowhere = await probed("http://alertmanager.example:9093", resolve=resolve)
    assert "the name alertmanager.example is not known (Name or service not known)" in nowhere.of("alertmanager")[0]
    assert looked_no_further(here)
    assert looked_no_further(nowhere)


async def test_silence_ends_with_the_deadline(monkeypatch):
    monkeypatch.setattr("proxy.app.probing.upstream.ASKED_FOR", 0.3)
    async with raw(lambda _: None) as am:
        found = await probed(am.url)
    assert "no answer within 0.3 s" in found.of("alertmanager")[0]
    assert ASKED_FOR < 5


async def test_a_certificate_that_is_not_trusted(tmp_path):
    async with raw(an_alertmanager(), tls=Authority(tmp_path).server("127.0.0.1")) as am:
        found = await probed(am.url)
    assert "its certificate is not accepted (" in found.of("alertmanager")[0]
    assert "alertmanager.tls_config.ca_file" in found.of("alertmanager")[0]


async def test_an_alertmanager_behind_tls_is_probed_as_it_is_asked(tmp_path):
    ca = Authority(tmp_path)
    async with raw(an_alertmanager(), tls=ca.server("127.0.0.1")) as am:
        found = await probed(am.url, alertmanager__tls_config__ca_file=ca.file)
    assert found.of("alertmanager")[0].startswith("ok: ")


@pytest.mark.parametrize(
    ("configured", "prefix"),
    [
        pytest.param("", "/alertmanager", id="the usual prefix is missing"),
        pytest.param("", "/am", id="the other usual prefix is missing"),
        pytest.param("/am", "", id="one too many"),
        pytest.param("/mon/am/api/v2/alerts", "/mon/am", id="the path of the API"),
        pytest.param("/old", "/new", id="as a redirect of the host says"),
    ],
)
async def test_a_prefix_that_does_not_fit_is_named(configured, prefix):
    real = an_alertmanager(prefix=prefix)

    def respond(path: str) -> bytes:
        if path == "/" and prefix:
            # As Alertmanager does it; a usual prefix is found without.
            return told("", "302 Found", Location=prefix) if prefix == "/new" else NOT_FOUND
        return real(path)

    async with raw(respond) as am:
        found = await probed(am.url + configured)
    first = found.of("alertmanager")[0]
    assert first.startswith("error: no Alertmanager at ")
    assert f"set alertmanager.url: {am.url}{prefix}, " in first
    assert (f"the path_prefix {prefix}" if prefix else "and senders to the proxy none") in first
    assert [one.check for one in found.all if one.level != "ok"] == ["alertmanager"], "the others were asked there"


async def test_a_web_page_above_a_prefix_is_no_login():
    real = an_alertmanager(prefix="/am")
    async with raw(lambda path: real(path) if path.startswith("/am") else told(LOGIN)) as am:
        found = await probed(am.url)
    assert f"but at {am.url}/am: " in found.of("alertmanager")[0]


async def test_the_same_address_is_not_named_as_another():
    turns = itertools.count()
    good = an_alertmanager()
    async with raw(lambda path: NOT_FOUND if not next(turns) else good(path)) as am:
        found = await probed(am.url)
    assert "404, and no Alertmanager under the usual prefixes" in found.of("alertmanager")[0]


async def test_a_redirect_loses_alerts_and_says_where_it_leads():
    real = an_alertmanager(prefix="/new")

    def respond(path: str) -> bytes:
        if path.startswith("/old"):
            return told("", "308 Permanent Redirect", Location=path.replace("/old", "/new"))
        return real(path)

    async with raw(respond) as am:
        found = await probed(f"{am.url}/old")
        assert f"set alertmanager.url: {am.url}/new" in found.of("alertmanager")[0]
        assert found.of("alertmanager")[1].startswith(f"ok: {am.url}/new: Alertmanager")


async def test_a_redirect_to_another_host_is_not_followed_and_shows_no_token():
    async with (
        raw(an_alertmanager()) as other,
        raw(lambda _: told("", "302 Found", Location=f"{other.url}/login?next=hunter2#hunter2")) as login,
        raw(lambda path: told("", "301 Moved", Location=f"{other.url}{path}")) as moved,
    ):
        to_login = await probed(login.url, environ=USER)
        to_other = await probed(moved.url, environ=USER)
        assert f"redirects to {other.url}/login (302), as a login page does" in to_login.of("alertmanager")[0]
        assert f"set alertmanager.url: {other.url}" in to_other.of("alertmanager")[0]
        assert not other.asked, "nobody else gets our credentials"
    assert looked_no_further(to_login)
    assert looked_no_further(to_other)


async def test_a_redirect_to_nowhere():
    async with raw(lambda _: told("", "302 Found")) as am:
        found = await probed(am.url)
    assert "redirects (302), as a login page does" in found.of("alertmanager")[0]


async def test_something_in_between_gives_itself_away():
    async with raw(lambda path: told(status(), Server="nginx/1.25") if "status" in path else told([])) as am:
        found = await probed(am.url)
    assert "something stands between this machine and Alertmanager (server: nginx/1.25)" in found.of("alertmanager")[1]
    assert not found.errors


async def test_a_clock_that_is_wrong_is_a_warning():
    async with raw(
        lambda path: told(status(), Date="Sun, 22 Nov 2020 12:00:00 GMT") if "status" in path else told([])
    ) as am:
        found = await probed(am.url)
    assert any(one.startswith("warning: Alertmanager's clock") for one in found.of("alertmanager"))


# Load balancers, and names with several addresses.


def instances(*, n: int):
    turns = itertools.cycle(range(n))
    return lambda: status(name=f"01{next(turns)}", peers=2)


async def test_a_load_balancer_in_between_is_an_error():
    async with raw(an_alertmanager(instances(n=2))) as am:
        found = await probed(am.url, alertmanager__replicas=2, store__url="redis://127.0.0.1:1")
    assert "12 connections were answered by 2 Alertmanagers (01" in found.one("load balancer")
    assert "a load balancer is in between; each gets some of the alerts only" in found.one("load balancer")
    assert found.one("load balancer").startswith("error: ")


async def test_without_a_cluster_they_are_told_apart_by_their_start():
    turns = itertools.cycle(("2026-11-22T12:00:00.001Z", "2026-11-22T12:00:00.002Z"))
    async with raw(an_alertmanager(lambda: status(uptime=next(turns)))) as am:
        found = await probed(am.url)
    assert "answered by 2 Alertmanagers" in found.one("load balancer")


async def test_a_restart_meanwhile_is_no_load_balancer():
    once = iter(["2026-11-22T12:00:00.001Z"])
    async with raw(an_alertmanager(lambda: status(uptime=next(once, "2100-01-01T00:00:00.000Z")))) as am:
        found = await probed(am.url)
    assert found.one("load balancer") == "warning: Alertmanager has started anew while it was asked; ask again"


async def test_connections_that_fail_now_and_then_are_a_warning():
    turns = itertools.count()
    good, bad = an_alertmanager(), told(status(), "502 Bad Gateway")
    async with raw(lambda path: bad if "status" in path and next(turns) % 4 == 3 else good(path)) as am:
        found = await probed(am.url)
    assert "3 of 12 connections had no answer of an Alertmanager" in found.one("load balancer")
    assert found.one("load balancer").startswith("warning: ")


async def test_a_name_with_several_alertmanagers_is_an_error():
    async with (
        raw(an_alertmanager(lambda: status(name="01A", peers=2))) as one,
        raw(an_alertmanager(lambda: status(name="01B", peers=2)), host="127.0.0.2", port=one.port),
    ):

        async def resolve(host, port):
            return ["127.0.0.1", "127.0.0.2"]

        found = await probed(f"http://am.example:{one.port}", resolve=resolve)
    assert "am.example has 2 addresses, of 2 Alertmanagers (01A, up since" in found.one("load balancer")
    assert found.one("load balancer").startswith("error: ")
    assert f"Host: am.example:{one.port}" in one.asked[0]


async def test_two_addresses_of_one_alertmanager_are_fine():
    async with (
        raw(an_alertmanager()) as one,
        raw(an_alertmanager(), host="127.0.0.2", port=one.port) as other,
    ):

        async def resolve(host, port):
            return ["127.0.0.1", "127.0.0.2"]

        found = await probed(f"http://am.example:{one.port}", resolve=resolve)
    assert found.fine
    assert other.asked


@pytest.mark.parametrize(
    ("dead", "told_of"), [("127.0.0.3", True), ("::1", False)], ids=["of the same family", "of the other family"]
)
async def test_an_address_that_does_not_answer_is_told_of(dead, told_of):
    async with raw(an_alertmanager()) as am:

        async def resolve(host, port):
            return ["127.0.0.1", dead]

        found = await probed(f"http://am.example:{am.port}", resolve=resolve)
    assert (f"{dead} does not answer" in found.one("load balancer")) is told_of
    assert found.fine is not told_of
    assert not found.errors


async def test_a_check_that_hangs_or_breaks_hides_no_other(monkeypatch):
    async def broken(upstream):
        raise ZeroDivisionError
        yield

    monkeypatch.setattr("proxy.app.probing.DEADLINE", 1.0)
    monkeypatch.setattr("proxy.app.probing.balanced", broken)
    good = an_alertmanager()
    async with raw(lambda path: None if "alerts" in path else good(path)) as am:
        found = await probed(am.url)
    assert found.one("double sending") == "error: not known: the check was not through within 1 s"
    assert found.one("load balancer") == "error: not known: a bug of this check (ZeroDivisionError)"
    assert found.one("routes").startswith("ok: ")
    assert found.one("silences").startswith("ok: ")


async def test_an_answer_without_end_is_given_up(monkeypatch):
    monkeypatch.setattr("proxy.app.probing.upstream._STATUS_LIMIT", 1000)
    async with raw(lambda _: answer("200 OK", b"x" * 5000)) as am:
        found = await probed(am.url)
    assert "an answer of more than 1000 bytes" in found.of("alertmanager")[0]


async def test_each_of_several_alertmanagers_is_asked_and_named():
    async with (
        raw(an_alertmanager(lambda: status(peers=3))) as one,
        raw(an_alertmanager(lambda: status(peers=3))) as other,
    ):
        found = await probed("", alertmanager__url=[one.url, other.url])
    assert [line.split(": ")[1] for line in found.of("alertmanager")] == [one.url, other.url]
    assert found.of("cluster")[1].startswith(f"error: {other.url}: this proxy sends to 2 Alertmanagers")


async def test_a_name_that_is_none_leaves_open_whether_there_are_several():
    async def resolve(host: str, port: int) -> list[str]:
        raise UnicodeError("label too long")

    found = [finding async for finding in balanced(SimpleNamespace(url=URL("http://odd.example"), resolve=resolve))]
    assert [one.message for one in found] == ["the addresses of odd.example are not known: label too long"]


async def test_each_address_of_a_name_that_is_watched_is_asked():
    async def resolve(host: str, _: int) -> list[str]:
        if host != "alertmanager.example":
            raise OSError("no such name") if "nowhere" in host else UnicodeError("label too long")
        return ["127.0.0.2", "127.0.0.1"]

    async with (
        raw(an_alertmanager()) as am,
        raw(an_alertmanager(), host="127.0.0.2", port=am.port) as other,
    ):
        port = other.port
        urls = [
            f"dns+http://alertmanager.example:{port}",
            "dns+http://nowhere.example:9093",
            "dns+http://odd.example:9093",
        ]
        found = await probed("", alertmanager__url=urls, resolve=resolve)
    unknown, odd, *reached = found.of("alertmanager")
    assert unknown.startswith("error: dns+http://nowhere.example:9093: the name cannot be looked up: no such name")
    assert odd.startswith("error: dns+http://odd.example:9093: the name cannot be looked up: label too long")
    assert [line.split(": ")[1] for line in reached] == [f"http://127.0.0.1:{port}", f"http://127.0.0.2:{port}"]


# What else is there on this machine.


async def test_something_else_on_our_port_is_a_warning(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    async with raw(an_alertmanager()) as am, raw(lambda _: b"") as other:
        here = f"127.0.0.1:{other.port}"
        taken = await probed(am.url, web__listen_address=here, admin=f"http://127.0.0.1:{free_port()}")
        free = await probed(am.url, web__listen_address=f"127.0.0.1:{free_port()}")
        foreign = await probed(am.url, web__listen_address=here, admin=am.url)
        async with raw(lambda _: told({"status": "ok"})) as stranger:
            strange = await probed(am.url, admin=stranger.url)
    assert f"something listens on web.listen_address ({here}), and no proxy answers" in taken.one("proxy")
    assert taken.one("proxy").startswith("warning: ")
    assert free.one("proxy") == "ok: none runs with these settings on this machine"
    assert f"something answers at {am.url} (404)" in foreign.one("proxy")
    assert "(200); a proxy would tell more" in strange.one("proxy")


async def test_a_running_proxy_says_its_version_and_its_mode():
    said = {"version": "0.0.1", "mode": "enriched", "alertmanager": {"url": "http://am.example"}}
    async with raw(an_alertmanager()) as am, raw(lambda _: told(said)) as admin:
        found = await probed(am.url, admin=admin.url, environ={"WEB_ADMIN_TOKEN": "hunter2"})
    assert "Authorization: Bearer hunter2\r\n" in admin.asked[0]
    version, older, elsewhere = found.of("proxy")
    assert version == f"ok: a proxy runs at {admin.url}: version 0.0.1, mode enriched"
    assert older.startswith("warning: it is of version 0.0.1")
    assert f"it forwards to http://am.example, and these settings say {am.url}" in elsewhere
