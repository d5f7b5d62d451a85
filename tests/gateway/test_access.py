"""TLS and credentials on the way to Alertmanager."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from certificates import Authority
from fakes import OK, body, exchange, post, posted, settings, status_of
from serving import serving
from structlog.testing import capture_logs

from proxy.app import build
from proxy.app.composition import Running
from proxy.errors import ConfigError
from proxy.gateway.access import Watched


@dataclass
class Secure:
    """A server that speaks TLS, and answers each request with 200."""

    port: int = 0
    connections: int = 0
    subjects: list[str] = field(default_factory=list)
    """Who its clients said they are, a request each; empty where they said nothing."""
    heads: list[bytes] = field(default_factory=list)
    """Of the requests that senders made."""

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def authorizations(self) -> list[bytes]:
        """The values of that header, a request each."""
        found = []
        for head in self.heads:
            values = [line[15:] for line in head.split(b"\r\n") if line.lower().startswith(b"authorization: ")]
            assert len(values) <= 1
            found += values or [b""]
        return found

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        peer = writer.get_extra_info("ssl_object").getpeercert() or {}
        names = {key: value for part in peer.get("subject", ()) for key, value in part}
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if b"Content-Length: " in head:
                    await reader.readexactly(int(head.partition(b"Content-Length: ")[2].split(b"\r\n")[0]))
                own = head.startswith((b"GET /api/v2/alerts ", b"GET /api/v2/status "))  # questions of the proxy's own
                if not own:
                    self.heads.append(head)
                    self.subjects.append(names.get("commonName", ""))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]" if own else OK)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


@asynccontextmanager
async def secure(context: ssl.SSLContext) -> AsyncIterator[Secure]:
    found = Secure()
    async with serving(found.serve, tls=context) as found.port:
        yield found


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def sent(running: Running, header: str = "X-Nothing: 1") -> int:
    """POST an alert, and return the status."""
    head, _, rest = post(body(posted())).partition(b"\r\n")
    return status_of(await exchange(running.data_port, b"\r\n".join([head, header.encode(), rest])))


async def got(running: Running) -> int:
    """GET something that is streamed, with a token; return the status."""
    return status_of(await exchange(running.data_port, b"GET /x HTTP/1.0\r\nAuthorization: Bearer a\r\n\r\n"))


def tls(alertmanager: str, ca: Authority, **flags: str):
    return settings(alertmanager, alertmanager__tls_config__ca_file=str(ca.file), **flags)


async def metric(running: Running, name: str) -> float:
    text = (await exchange(running.admin_port, b"GET /metrics HTTP/1.0\r\n\r\n")).decode()
    return float(next(line for line in text.splitlines() if line.startswith(name + " ")).split()[1])


async def test_alerts_and_all_else_go_over_tls_with_our_certificate_and_our_token(ca: Authority, tmp_path: Path):
    cert, key = ca.files("proxy")
    token = tmp_path / "token"
    token.write_text("t-1\n")
    flags = {
        "alertmanager__tls_config__cert_file": str(cert),
        "alertmanager__tls_config__key_file": str(key),
        "alertmanager__authorization__credentials_file": str(token),
    }
    async with (
        secure(ca.server("127.0.0.1", mutual=True)) as am,
        build(tls(am.url, ca, **flags)) as running,
    ):
        assert await sent(running, "Authorization: Basic dTpw") == 200
        assert await got(running) == 200
    assert am.authorizations() == [b"Bearer t-1", b"Bearer t-1"]
    assert am.subjects == ["proxy", "proxy"]


async def test_without_credentials_of_ours_the_senders_are_passed_on(ca: Authority):
    async with secure(ca.server("127.0.0.1")) as am, build(tls(am.url, ca)) as running:
        assert await sent(running, "Authorization: Basic dTpw") == 200
        assert await sent(running) == 200
        assert await got(running) == 200
    assert am.authorizations() == [b"Basic dTpw", b"", b"Bearer a"]


async def test_a_token_that_changes_is_used_at_once_and_one_that_is_gone_leaves_the_old(ca: Authority, tmp_path: Path):
    token = tmp_path / "token"
    token.write_text("t-1\n")
    async with secure(ca.server("127.0.0.1")) as am:
        flags = {"alertmanager__authorization__credentials_file": str(token)}
        async with build(tls(am.url, ca, **flags)) as running:
            await sent(running)
            token.write_text("t-22\n")
            await sent(running)
            assert await metric(running, "aiproxy_credentials_last_reload_successful") == 1
            with capture_logs() as logs:
                token.write_text("")
                await sent(running)
                token.unlink()
                await sent(running)
            assert await metric(running, "aiproxy_credentials_last_reload_successful") == 0
            (tmp_path / "other").write_text("t-3")
            token.symlink_to(tmp_path / "other")
            await sent(running)
            assert await metric(running, "aiproxy_credentials_last_reload_successful") == 1
    assert am.authorizations() == [b"Bearer t-1", b"Bearer t-22", b"Bearer t-22", b"Bearer t-22", b"Bearer t-3"]
    assert [entry["log_level"] for entry in logs] == ["error", "error"]
    assert "t-22" not in str(logs)


@pytest.mark.parametrize("kind", ["authorization__credentials", "basic_auth__password"])
async def test_a_secret_with_another_line_in_it_leaves_the_old_and_is_told_once(kind, alertmanager, tmp_path: Path):
    file = tmp_path / "secret"
    file.write_text("t-1\n")
    flags = {f"alertmanager__{kind}_file": str(file), "alertmanager__basic_auth__username": "ada"}
    if kind.startswith("auth"):
        flags.pop("alertmanager__basic_auth__username")
    async with build(settings(alertmanager.url, **flags)) as running:
        assert await sent(running) == 200
        with capture_logs() as logs:
            file.write_text("t-22\nt-33\n")
            for _ in range(3):
                assert await sent(running) == 200
        assert await got(running) == 200
        assert await metric(running, "aiproxy_credentials_last_reload_successful") == 0
    assert len({request.header("Authorization") for request in alertmanager.received}) == 1
    assert [entry["error"] for entry in logs] == [
        "a secret on one line is wanted, and this has other lines, or control characters"
    ]


@pytest.mark.parametrize(
    "setting", ["alertmanager.authorization.credentials", "alertmanager.basic_auth.password", "web.admin_token"]
)
def test_a_secret_in_a_file_that_no_header_can_carry_is_refused_at_the_start(setting, tmp_path: Path):
    file = tmp_path / "secret"
    file.write_text("hunter2\nhunter3\n")
    flag = f"--{setting}_file".replace("_", "-")
    with pytest.raises(ConfigError, match=f"{flag}: a secret on one line is wanted") as refused:
        settings("http://127.0.0.1:9", **{f"{setting}_file".replace(".", "__"): str(file)})
    assert "hunter" not in str(refused.value)


async def test_a_password_in_a_file_goes_with_its_user(ca: Authority, tmp_path: Path):
    (tmp_path / "password").write_text("hunter2")
    flags = {
        "alertmanager__basic_auth__username": "ada",
        "alertmanager__basic_auth__password_file": str(tmp_path / "password"),
    }
    async with secure(ca.server("127.0.0.1")) as am, build(tls(am.url, ca, **flags)) as running:
        await sent(running)
    assert am.authorizations() == [b"Basic YWRhOmh1bnRlcjI="]


async def test_another_certificate_is_shown_on_the_next_connection(ca: Authority):
    cert, key = ca.files("old")
    flags = {"alertmanager__tls_config__cert_file": str(cert), "alertmanager__tls_config__key_file": str(key)}
    async with (
        secure(ca.server("127.0.0.1", mutual=True)) as am,
        build(tls(am.url, ca, **flags)) as running,
    ):
        await sent(running)
        for one, other in zip(ca.files("new"), (cert, key), strict=True):
            other.write_bytes(one.read_bytes())
        await sent(running)
        cert.write_text("no certificate")
        assert await sent(running) == 200, "the last good one holds"
    assert am.subjects == ["old", "new", "new"]


async def test_a_certificate_that_is_not_trusted_is_told_and_not_tried_again(ca: Authority, tmp_path: Path):
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other")
    async with secure(ca.server("127.0.0.1")) as am, build(tls(am.url, ca)) as running:
        await sent(running)  # so that it has answered before
        ca.file.write_bytes(other.file.read_bytes())
        begun = am.connections
        said = await exchange(running.data_port, post(body(posted())))
        assert status_of(said) == 502
        assert b"alertmanager.tls_config.ca_file" in said
        assert am.connections == begun, "no handshake came to its end"
        assert await metric(running, "aiproxy_credentials_last_reload_successful") == 1


async def test_the_name_in_the_certificate_may_be_another_than_that_of_the_url(ca: Authority):
    flags = {"alertmanager__tls_config__server_name": "alertmanager.example"}
    async with secure(ca.server("alertmanager.example")) as am:
        async with build(tls(am.url, ca, **flags)) as running:
            assert await sent(running) == 200
        async with build(tls(am.url, ca)) as running:
            assert await sent(running) == 502


async def test_any_certificate_is_taken_if_that_is_wanted(ca: Authority):
    flags = {"alertmanager__tls_config__insecure_skip_verify": "true"}
    async with secure(ca.server("elsewhere.example")) as am, build(settings(am.url, **flags)) as running:
        assert await sent(running) == 200


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"ca_file": "nowhere.pem"}, "alertmanager.tls_config: ca_file nowhere.pem: No such file"),
        ({"ca_file": __file__}, "it holds no such pem"),
        (
            {"cert_file": "ca.pem", "key_file": "ca.pem"},
            "tls_config: cert_file ca.pem and key_file ca.pem",
        ),
    ],
    ids=["is not there", "is no PEM", "holds no key"],
)
async def test_a_file_that_cannot_be_used_is_told_at_the_start(ca: Authority, tmp_path, monkeypatch, flags, said):
    monkeypatch.chdir(tmp_path)
    named = {f"alertmanager__tls_config__{key}": value for key, value in flags.items()}
    with pytest.raises(ConfigError, match=said):
        async with build(settings("https://127.0.0.1:1", **named)):
            pass


def test_nothing_is_read_again_that_has_not_changed(tmp_path: Path):
    file, read = tmp_path / "one", []
    file.write_text("1")
    watched = Watched(lambda: [file], lambda: read.append(file.read_text()))
    for _ in range(3):
        assert watched.current is None
    file.write_text("22")
    for _ in range(3):
        assert watched.current is None
    assert read == ["1", "22"]


def test_a_file_that_changes_while_it_is_read_is_read_again(tmp_path: Path):
    file, next_text = tmp_path / "file", iter(["two", "three, and more"])
    file.write_text("1")

    def read() -> str:
        text = file.read_text()
        file.write_text(next(next_text, text))
        return text

    watched = Watched(lambda: [file], read)
    assert [watched.current for _ in range(3)] == ["two", "three, and more", "three, and more"]


@pytest.mark.timeout(10)
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first")
    watched = Watched(lambda: [file], file.read_text)
    file.unlink()
    os.mkfifo(file)
    assert watched.current == "first"
    file.unlink()
    file.write_text("second")
    assert watched.current == "second"
