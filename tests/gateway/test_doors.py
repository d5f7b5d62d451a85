"""Listeners that speak TLS and ask who comes in, as their files say."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from asyncio import sslproto
from functools import partial
from pathlib import Path

import pytest
from certificates import Authority
from fakes import body, post, posted, settings, status_of
from knocking import ASK, LISTENERS, SETTING, Doors, basic, has, hashed, metric, port, said, until, verified
from serving import serving
from structlog.testing import capture_logs

from proxy.app import Loop, build
from proxy.errors import ConfigError
from proxy.gateway.connections import BoundedServer, Limits
from proxy.gateway.server_tls import server_context
from proxy.gateway.web_config import read


@pytest.fixture
def doors(tmp_path: Path) -> Doors:
    return Doors(tmp_path)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_alerts_come_in_through_tls_as_they_were_sent(version, doors: Doors, alertmanager):
    client = doors.client()
    client.minimum_version = client.maximum_version = version
    alert = body(posted(annotations={"a": "ä" * 300_000}))
    async with build(settings(alertmanager.url, web__config__file=doors.says(tls_server_config=doors.tls))) as running:
        answer = await said(running.data_port, post(alert).replace(b"HTTP/1.1", b"HTTP/1.0"), client)
        assert status_of(answer) == 200
    assert alertmanager.posts[0].body == alert


@LISTENERS
async def test_who_does_not_speak_tls_is_not_spoken_to(name: str, doors: Doors, alertmanager):
    flags = {SETTING[name]: doors.says(tls_server_config=doors.tls)}
    async with build(settings(alertmanager.url, **flags)) as running:
        with capture_logs() as logs:
            for _ in range(3):
                assert not (await said(port(running, name), ASK[name] + b"\r\n", None)).startswith(b"HTTP")
        told = [line for line in logs if "fails at TLS" in line["event"]]
        assert [(line["listener"], line["error"]) for line in told] == [(name, "http request")]
        cut = f'aiproxy_connections_cut_total{{listener="{name}",reason="tls_handshake"}} '
        assert await metric(running, cut, doors.client() if name == "admin" else None) == 3
        assert status_of(await said(port(running, name), ASK[name] + b"\r\n", doors.client())) == 200


@LISTENERS
async def test_a_handshake_that_goes_nowhere_takes_a_place_and_ends_in_time(name, doors: Doors, alertmanager):
    flags = {SETTING[name]: doors.says(tls_server_config=doors.tls)}
    async with build(settings(alertmanager.url, web__header_timeout="1s", **flags)) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", port(running, name))
        tls = doors.client() if name == "admin" else None
        here = f'aiproxy_connections{{listener="{name}"}} '
        asking = name == "admin"
        assert await metric(running, here, tls) == 1 + asking
        async with asyncio.timeout(10):
            assert await reader.read() == b""
        assert await metric(running, here, tls) == asking
        writer.close()


async def test_handshakes_make_room_for_those_who_come(doors: Doors, alertmanager):
    flags = {"web__config__file": doors.says(tls_server_config=doors.tls), "web__max_connections": "8"}
    async with build(settings(alertmanager.url, **flags)) as running:
        waiting = [await asyncio.open_connection("127.0.0.1", running.data_port) for _ in range(8)]
        await until(lambda: has(running, 'aiproxy_connections{listener="data"} ', 8))
        assert status_of(await said(running.data_port, ASK["data"] + b"\r\n", doors.client())) == 200
        async with asyncio.timeout(10):
            assert await waiting[0][0].read() == b"", "the first to come"
        cut = 'aiproxy_connections_cut_total{listener="data",reason='
        assert await metric(running, f'{cut}"displaced"}} ') == 1
        assert await metric(running, f'{cut}"tls_handshake"}} ') == 0
        for _, writer in waiting:
            writer.transport.abort()


async def test_one_without_a_place_is_let_go(doors: Doors):
    gate = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while await reader.readuntil(b"\r\n\r\n"):
                await gate.wait()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]")
        writer.close()

    flags = {"web__config__file": doors.says(tls_server_config=doors.tls), "web__max_connections": "8"}
    async with serving(slow) as upstream, build(settings(f"http://127.0.0.1:{upstream}", **flags)) as running:
        request = ASK["data"] + b"\r\n"
        busy = [asyncio.create_task(said(running.data_port, request, doors.client())) for _ in range(8)]
        await until(lambda: has(running, 'aiproxy_connections{listener="data"} ', 8))
        await asyncio.sleep(0.2)  # until all are in flight
        with pytest.raises(ConnectionError):
            await said(running.data_port, request, doors.client())
        gate.set()
        assert [status_of(answer) for answer in await asyncio.gather(*busy)] == [200] * 8


@pytest.mark.parametrize("farewell", [False, True], ids=["a request", "a request and a farewell"])
async def test_what_comes_in_one_piece_with_the_end_of_a_handshake(farewell: bool, doors: Doors, alertmanager):
    async with build(settings(alertmanager.url, web__config__file=doors.says(tls_server_config=doors.tls))) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.data_port)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = doors.client().wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
        while client.version() is None or not outgoing.pending:
            with contextlib.suppress(ssl.SSLWantReadError):
                client.do_handshake()
                break
            writer.write(outgoing.read())
            incoming.write(await reader.read(1 << 16))
        client.write(post(body(posted())))
        if farewell:
            with contextlib.suppress(ssl.SSLError):
                client.unwrap()
        writer.write(outgoing.read())
        answered = b""
        async with asyncio.timeout(10):
            while not answered and (more := await reader.read(1 << 16)):
                incoming.write(more)
                with contextlib.suppress(ssl.SSLError):
                    answered = client.read(1 << 16)
        writer.close()
        assert answered[9:12] == (b"" if farewell else b"200"), "TLS closes both sides at once"
        async with asyncio.timeout(10):
            while not alertmanager.posts:
                await asyncio.sleep(0.01)
        await until(lambda: has(running, 'aiproxy_connections{listener="data"} ', 0))


def test_an_answer_below_tls_that_has_not_left_keeps_its_place():
    class Buffered:
        def __init__(self, size: int) -> None:
            self.size = size

        def get_write_buffer_size(self) -> int:
            return self.size

    async def displaceable(above: int, below: int) -> bool:
        server = BoundedServer(lambda _: None, Limits(1, 1, 1, 1), name="data", on_cut=print)
        connection = server.connected(over=Buffered(below))
        connection._wire = Buffered(above)
        return connection.displaceable

    found = [asyncio.run(displaceable(*sizes)) for sizes in ((0, 0), (1, 0), (0, 1))]
    assert found == [True, False, False]


async def test_a_proxy_that_ends_waits_for_no_handshake(doors: Doors, alertmanager):
    async with build(settings(alertmanager.url, web__config__file=doors.says(tls_server_config=doors.tls))) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.data_port)
        await until(lambda: has(running, 'aiproxy_connections{listener="data"} ', 1))
        begun = time.monotonic()
    assert time.monotonic() - begun < 10
    assert await reader.read() == b""
    writer.close()


async def test_who_does_not_read_is_cut_off_through_tls_too(doors: Doors, monkeypatch):
    long = 32 << 20

    async def much(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % long)
        with contextlib.suppress(ConnectionError):
            for _ in range(long >> 16):
                writer.write(bytes(1 << 16))
                await writer.drain()
        writer.close()

    monkeypatch.setattr("proxy.app.doors.Limits", partial(Limits, answer_timeout=0.8))
    flags = {"web__config__file": doors.says(tls_server_config=doors.tls)}
    async with serving(much) as upstream, build(settings(f"http://127.0.0.1:{upstream}", **flags)) as running:
        whole = await said(running.data_port, ASK["data"] + b"\r\n", doors.client())
        assert len(whole.partition(b"\r\n\r\n")[2]) == long, "who reads gets all of it"
        _, writer = await asyncio.open_connection("127.0.0.1", running.data_port, ssl=doors.client())
        writer.transport.pause_reading()
        writer.write(ASK["data"] + b"\r\n")
        await until(lambda: has(running, 'aiproxy_connections_cut_total{listener="data",reason="not_read"} ', 1))
        writer.transport.abort()


@LISTENERS
async def test_clients_show_a_certificate_of_the_ca(name: str, doors: Doors, alertmanager, tmp_path: Path):
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other").files("prometheus", "prometheus.example")
    ours, theirs = (doors.ca.files(who, f"{who}.example") for who in ("prometheus", "grafana"))
    flags = {SETTING[name]: verified(doors, client_allowed_sans=["prometheus.example"])}
    async with build(settings(alertmanager.url, **flags)) as running:
        request = ASK[name] + b"\r\n"
        for _ in range(2):  # the second time a session may be resumed
            assert status_of(await said(port(running, name), request, doors.client(ours))) == 200
        for certificate in (None, stranger, theirs):
            raw = b""
            with contextlib.suppress(OSError):
                raw = await said(port(running, name), request, doors.client(certificate))
            assert raw == b""
        cut = f'aiproxy_connections_cut_total{{listener="{name}",reason="tls_handshake"}} '
        assert await metric(running, cut, doors.client(ours) if name == "admin" else None) == 3


async def test_a_certificate_may_be_left_out_where_it_is_checked_only_if_given(doors: Doors, alertmanager):
    ours, theirs = (doors.ca.files(who, f"{who}.example") for who in ("prometheus", "grafana"))
    file = verified(doors, client_auth_type="VerifyClientCertIfGiven", client_allowed_sans=["prometheus.example"])
    async with build(settings(alertmanager.url, web__config__file=file)) as running:
        for certificate in (None, ours):
            raw = await said(running.data_port, ASK["data"] + b"\r\n", doors.client(certificate))
            assert status_of(raw) == 200
        raw = b""
        with contextlib.suppress(OSError):
            raw = await said(running.data_port, ASK["data"] + b"\r\n", doors.client(theirs))
        assert raw == b""


async def serial(port: int, doors: Doors) -> str:
    """Return that of the certificate that new clients see."""
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=doors.client())
    shown = writer.get_extra_info("peercert")
    writer.transport.abort()
    return str(shown["serialNumber"])


async def test_a_renewed_certificate_is_shown_to_new_clients_and_costs_the_others_nothing(doors: Doors, alertmanager):
    file = doors.says(tls_server_config=doors.tls)
    async with build(settings(alertmanager.url, web__config__file=file)) as running:
        before = await serial(running.data_port, doors)
        reader, writer = await asyncio.open_connection("127.0.0.1", running.data_port, ssl=doors.client())
        doors.ca.files("server", "127.0.0.1")
        after = await serial(running.data_port, doors)
        assert after != before
        writer.write(ASK["data"] + b"\r\n")
        assert status_of(await reader.read()) == 200
        writer.transport.abort()

        read = 'aiproxy_web_config_last_reload_successful{listener="data"} '
        assert await metric(running, read) == 1
        (doors.file.parent / "server.pem").write_text("nothing")
        with capture_logs() as logs:
            assert await serial(running.data_port, doors) == after, "the last good one holds"
            assert await serial(running.data_port, doors) == after
        assert [line["log_level"] for line in logs] == ["error"], "said once"
        assert "cert_file" in logs[0]["error"]
        assert await metric(running, read) == 0
        doors.ca.files("server", "127.0.0.1")
        assert await serial(running.data_port, doors) not in {before, after}
        assert await metric(running, read) == 1


async def test_a_file_that_comes_later_than_its_name_is_noticed(doors: Doors, alertmanager):
    file = doors.says(tls_server_config=doors.tls)
    async with build(settings(alertmanager.url, web__config__file=file)) as running:
        before = await serial(running.data_port, doors)
        doors.says(tls_server_config={"cert_file": "next.pem", "key_file": "next.key"})
        assert await serial(running.data_port, doors) == before
        doors.ca.files("next", "127.0.0.1")
        assert await serial(running.data_port, doors) != before


async def test_whether_tls_is_spoken_does_not_change_while_it_runs(doors: Doors, alertmanager):
    file = doors.says(tls_server_config=doors.tls)
    async with build(settings(alertmanager.url, web__config__file=file)) as running:
        doors.says()
        assert status_of(await said(running.data_port, ASK["data"] + b"\r\n", doors.client())) == 200
        assert await metric(running, 'aiproxy_web_config_last_reload_successful{listener="data"} ') == 0


HEADERS = {"X-Frame-Options": "deny", "X-Content-Type-Options": "nosniff"}


@LISTENERS
async def test_headers_are_added_to_answers_that_have_none_of_the_name(name: str, doors: Doors):
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Frame-Options: sameorigin\r\n\r\n")
        writer.close()

    config = {"http_server_config": {"headers": HEADERS}, "basic_auth_users": {"ada": hashed("a")}}
    flags = {SETTING[name]: doors.says(**config)}
    async with serving(answer) as upstream, build(settings(f"http://127.0.0.1:{upstream}", **flags)) as running:
        answered = await said(port(running, name), ASK[name] + basic("ada:a") + b"\r\n", None)
        refused = await said(port(running, name), ASK[name] + b"\r\n", None)
    for raw in (answered, refused):
        assert raw.count(b"X-Frame-Options: ") == raw.count(b"X-Content-Type-Options: nosniff\r\n") == 1
    assert (b"X-Frame-Options: sameorigin" in answered) is (name == "data")
    assert b"X-Frame-Options: deny" in refused


async def test_a_door_that_cannot_be_used_is_told_before_anything_opens(doors: Doors, alertmanager):
    doors.file.write_text("tls_server_config: {cert_file: nobody.pem, key_file: nobody.key}")
    with pytest.raises(ConfigError, match=r"nobody\.pem and key_file \S+nobody\.key: No such file"):
        async with build(settings(alertmanager.url, web__config__file=str(doors.file))):
            pass


def test_a_connection_through_tls_takes_no_more_than_it_needs(doors: Doors, monkeypatch):
    monkeypatch.setattr(sslproto.SSLProtocol, "max_size", sslproto.SSLProtocol.max_size)  # is put back
    server = server_context(read(Path(doors.says(tls_server_config=doors.tls))).tls)

    async def reads(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async def buffer() -> int:
        async with serving(reads, tls=server) as port:
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=doors.client())
            taken = len(writer.transport._ssl_protocol._ssl_buffer)
            writer.transport.abort()
        return taken

    with asyncio.Runner(loop_factory=Loop) as runner:
        assert runner.run(buffer()) <= 64 << 10
