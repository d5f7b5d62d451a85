"""Listeners that ask for users with passwords, for certificates, or for a token."""

from __future__ import annotations

import asyncio
import base64
import os
import threading
import time
from pathlib import Path
from typing import Any

import bcrypt
import pytest
from fakes import body, post, posted, settings, status_of
from knocking import ASK, LISTENERS, SETTING, Doors, basic, hashed, metric, port, said, verified
from structlog.testing import capture_logs

from proxy.app import build
from proxy.app.doors import chosen_doors
from proxy.errors import ConfigError
from proxy.gateway import users


@pytest.fixture
def doors(tmp_path: Path) -> Doors:
    return Doors(tmp_path)


@LISTENERS
async def test_users_come_in_with_their_passwords_and_nobody_else(name: str, doors: Doors, alertmanager):
    flags = {SETTING[name]: doors.says(basic_auth_users={"ada": hashed("p:ä"), "bob": hashed("b")})}
    async with build(settings(alertmanager.url, **flags)) as running:

        async def status(header: bytes) -> int:
            return status_of(await said(port(running, name), ASK[name] + header + b"\r\n", None))

        assert [await status(basic(one)) for one in ("ada:p:ä", "bob:b", "ada:p:ä")] == [200] * 3
        wrong = ("ada:b", "bob:", "eve:b", "ada", ":", "")
        assert [await status(basic(one)) for one in wrong] == [401] * len(wrong)
        loose = base64.b64encode(b"bob:b").replace(b"m", b"!m", 1)
        others = (b"Bearer b", b"Basic " + loose, b"Basic %%%", b"Basic \xff", b"Basic", b"")
        assert [await status(b"Authorization: %b\r\n" % one) for one in others] == [401] * len(others)
        assert await status(b"") == 401
        refusal = await said(port(running, name), ASK[name] + b"\r\n", None)
        assert b"\r\nWWW-Authenticate: Basic\r\n" in refusal
    assert alertmanager.posts == []


async def test_a_post_of_the_unknown_reaches_nobody(doors: Doors, alertmanager):
    flags = {"web__config__file": doors.says(basic_auth_users={"ada": hashed("a")})}
    async with build(settings(alertmanager.url, **flags)) as running:
        head, _, rest = post(body(posted())).partition(b"\r\n")
        assert status_of(await said(running.data_port, head + b"\r\nConnection: close\r\n" + rest, None)) == 401
        assert alertmanager.posts == []
        known = head + b"\r\nConnection: close\r\n" + basic("ada:a") + rest
        assert status_of(await said(running.data_port, known, None)) == 200
    passed_on = ("Authorization", basic("ada:a").decode()[15:].strip())
    assert passed_on in alertmanager.posts[0].headers, "it is the sender's"


@LISTENERS
async def test_behind_a_refusal_that_spares_a_body_nothing_is_taken_for_it(name: str, doors: Doors, alertmanager):
    flags = {SETTING[name]: doors.says(basic_auth_users={"ada": hashed("a")})}
    ask = b"POST /x HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 50\r\n"
    async with build(settings(alertmanager.url, **flags)) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", port(running, name))
        writer.write(ask + b"Expect: 100-continue\r\n\r\n")
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        assert (status_of(head), b"\r\nConnection: close\r\n" in head) == (401, True)
        writer.close()
        sends = ask + b"\r\n" + b"x" * 50 + ASK[name] + basic("ada:a") + b"\r\n"
        both = await said(port(running, name), sends, None)
        assert [both.count(b"HTTP/1.1 401 "), both.count(b"HTTP/1.1 200 ")] == [1, 1]


async def test_a_password_is_compared_once_and_one_at_a_time(doors: Doors, alertmanager, monkeypatch):
    asked, at_once, most = [], 0, 0
    lock = threading.Lock()
    really = bcrypt.checkpw

    def checkpw(password: bytes, wanted: bytes) -> bool:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        asked.append(password)
        time.sleep(0.02)
        found = really(password, wanted)
        with lock:
            at_once -= 1
        return found

    monkeypatch.setattr(users.bcrypt, "checkpw", checkpw)
    flags = {"web__config__file": doors.says(basic_auth_users={"ada": hashed("a")})}
    async with build(settings(alertmanager.url, **flags)) as running:

        async def knock(password: str) -> int:
            return status_of(await said(running.data_port, ASK["data"] + basic(f"ada:{password}") + b"\r\n", None))

        assert await knock("a") == 200
        monkeypatch.setattr(users, "_REMEMBERED", 3)
        guesses = [f"guess {n}" for n in range(20)]
        assert await asyncio.gather(*map(knock, guesses)) == [401] * 20
        assert await asyncio.gather(*(knock("a") for _ in range(10))) == [200] * 10
        assert await knock("guess 19") == 401
    assert sorted(asked) == sorted(one.encode() for one in ["a", *guesses])
    assert most == 1


async def test_those_who_guess_make_nobody_forget_who_is_known(doors: Doors, monkeypatch):
    monkeypatch.setattr(users, "_REMEMBERED", 3)
    knows, hashes, asked = users.Users(), {"ada": hashed("a").encode()}, []
    really = bcrypt.checkpw
    monkeypatch.setattr(users.bcrypt, "checkpw", lambda *given: asked.append(given[0]) or really(*given))

    class Shows:
        remote = "127.0.0.1"

        def __init__(self, credentials: str) -> None:
            self.headers = {"Authorization": basic(credentials).decode()[15:].strip()}

    assert await knows.know(Shows("ada:a"), hashes)
    for n in range(10):
        assert not await knows.know(Shows(f"ada:{n}"), hashes)
    assert await knows.know(Shows("ada:a"), hashes)
    assert asked.count(b"a") == 1
    assert not await knows.know(Shows("ada:a"), {"ada": hashed("b").encode()}), "the password was changed"
    assert not await knows.know(Shows("ada:a"), {}), "the user is gone"


async def test_nobody_comes_in_under_another_name_with_anothers_password():
    class Shows:
        remote = "127.0.0.1"
        headers = {"Authorization": basic("eve:a").decode()[15:].strip()}  # noqa: RUF012 # a request's

    assert not await users.Users().know(Shows(), {"ada": hashed("a").encode()})


async def test_a_long_password_is_compared_as_far_as_bcrypt_does(doors: Doors):
    long = "x" * 100

    class Shows:
        remote = "127.0.0.1"
        headers = {"Authorization": basic(f"ada:{long}").decode()[15:].strip()}  # noqa: RUF012 # a request's

    assert await users.Users().know(Shows(), {"ada": hashed(long[:72]).encode()})


async def test_users_come_and_go_without_a_restart(doors: Doors, alertmanager):
    flags = {"web__config__file": doors.says(basic_auth_users={"ada": hashed("a")})}
    async with build(settings(alertmanager.url, **flags)) as running:

        async def status(credentials: str) -> int:
            return status_of(await said(running.data_port, ASK["data"] + basic(credentials) + b"\r\n", None))

        assert [await status("ada:a"), await status("bob:b")] == [200, 401]
        doors.says(basic_auth_users={"bob": hashed("b")})
        assert [await status("ada:a"), await status("bob:b")] == [401, 200]
        doors.file.write_text("basic_auth_users: {bob: b}")
        assert await status("bob:b") == 200, "the last good one holds"
        doors.file.unlink()
        assert [await status("ada:a"), await status("bob:b")] == [401, 200]


@LISTENERS
async def test_what_was_asked_for_is_asked_for_until_a_restart(name: str, doors: Doors, alertmanager):
    """Whoever writes a file anew empties it first."""
    users = {"ada": hashed("a")}
    flags = {SETTING[name]: doors.says(basic_auth_users=users)}
    async with build(settings(alertmanager.url, **flags)) as running:
        for text in ("", "{}", "basic_auth_users: {}"):
            doors.file.write_text(text)
            assert status_of(await said(port(running, name), ASK[name] + b"\r\n", None)) == 401
            assert status_of(await said(port(running, name), ASK[name] + basic("ada:a") + b"\r\n", None)) == 200
            sample = f'aiproxy_web_config_last_reload_successful{{listener="{name}"}} '
            assert await metric(running, sample, header=basic("ada:a")) == 0


@LISTENERS
@pytest.mark.parametrize("left", ["basic_auth_users", "client_auth_type", None])
def test_of_two_things_that_were_asked_for_both_are_until_a_restart(name: str, left: str | None, doors: Doors):
    users = {"basic_auth_users": {"ada": hashed("a")}}
    asked = doors.tls | {"client_auth_type": "RequireAndVerifyClientCert", "client_ca_file": "ca.pem"}
    flags = {SETTING[name]: doors.says(tls_server_config=asked, **users)}
    door = chosen_doors(settings("http://127.0.0.1:1", **flags))[name]
    both = door.state.config.asks_for
    assert both == {"basic_auth_users", "client_auth_type"}
    less = {"tls_server_config": asked if left == "client_auth_type" else doors.tls}
    doors.says(**less, **(users if left == "basic_auth_users" else {}))
    with capture_logs() as logs:
        assert door.state.config.asks_for == both
    gone = " and ".join(sorted(both - {left}))
    assert f"{gone} can be taken back with a restart alone" in logs[0]["error"]


CREDENTIALS = {"alertmanager__basic_auth__username": "ada", "alertmanager__basic_auth__password_file": os.devnull}


@pytest.mark.parametrize(
    ("config", "taken"),
    [
        pytest.param({}, False, id="nobody is asked"),
        pytest.param({"basic_auth_users": {"ada": hashed("a")}}, True, id="users"),
        pytest.param({"clients": "VerifyClientCertIfGiven"}, False, id="a certificate that may be left out"),
        pytest.param({"clients": "RequireAndVerifyClientCert"}, True, id="certificates"),
    ],
)
def test_our_credentials_are_for_those_whom_we_know(config: dict[str, Any], taken: bool, doors: Doors, tmp_path: Path):
    if clients := config.pop("clients", None):
        config["tls_server_config"] = {**doors.tls, "client_auth_type": clients, "client_ca_file": "ca.pem"}
    (tmp_path / "password").write_text("x")
    flags = CREDENTIALS | {"alertmanager__basic_auth__password_file": str(tmp_path / "password")}
    given = settings("http://127.0.0.1:1", web__config__file=doors.says(**config), **flags, web__listen_address=":0")
    if taken:
        assert chosen_doors(given)["data"].state.config.asks_for
    else:
        with pytest.raises(ConfigError, match="could use the proxy's credentials for Alertmanager"):
            chosen_doors(given)
    allowed = settings(
        "http://127.0.0.1:1", web__config__file=doors.says(**config), **flags, web__listen_address=":0",
        web__allow_anonymous="true",
    )  # fmt: skip
    assert bool(chosen_doors(allowed)["data"].state.config.asks_for) is taken


async def test_a_changed_file_does_not_open_the_door_to_our_credentials(doors: Doors, alertmanager, tmp_path: Path):
    (tmp_path / "password").write_text("x")
    flags = CREDENTIALS | {"alertmanager__basic_auth__password_file": str(tmp_path / "password")}
    file = doors.says(basic_auth_users={"ada": hashed("a")})
    async with build(settings(alertmanager.url, web__config__file=file, web__listen_address=":0", **flags)) as running:
        doors.says()
        assert status_of(await said(running.data_port, ASK["data"] + b"\r\n", None)) == 401


STATUS = b"GET /api/v1/status HTTP/1.0\r\nHost: proxy.example\r\n"


@pytest.mark.parametrize("token", ["", "t-1"])
async def test_a_user_of_the_admin_listener_needs_no_token_and_a_token_no_user(token, doors: Doors, alertmanager):
    flags = {"web__admin_config__file": doors.says(basic_auth_users={"ada": hashed("a")})}
    if token:
        (doors.file.parent / "token").write_text(token)
        flags["web__admin_token_file"] = str(doors.file.parent / "token")
    async with build(settings(alertmanager.url, web__admin_listen_address=":0", **flags)) as running:

        async def status(header: bytes) -> int:
            return status_of(await said(running.admin_port, STATUS + header + b"\r\n", None))

        assert await status(basic("ada:a")) == 200
        assert await status(basic("ada:b")) == 401
        assert await status(b"") == 401
        assert await status(b"Authorization: Bearer t-1\r\n") == (200 if token else 401)
        assert await status(b"Authorization: Bearer \r\n") == 401


@pytest.mark.parametrize("token", ["", "t-1"])
async def test_a_certificate_opens_the_admin_listener_where_no_token_is_wanted(token, doors: Doors, alertmanager):
    ours = doors.client(doors.ca.files("prometheus"))
    flags = {"web__admin_config__file": verified(doors)}
    if token:
        (doors.file.parent / "token").write_text(token)
        flags["web__admin_token_file"] = str(doors.file.parent / "token")
    async with build(settings(alertmanager.url, web__admin_listen_address=":0", **flags)) as running:
        assert status_of(await said(running.admin_port, STATUS + b"\r\n", ours)) == (401 if token else 200)
        bearer = b"Authorization: Bearer t-1\r\n\r\n"
        assert status_of(await said(running.admin_port, STATUS + bearer, ours)) == 200


async def test_a_page_of_another_origin_changes_nothing_with_a_users_password(doors: Doors, alertmanager):
    flags = {"web__admin_config__file": doors.says(basic_auth_users={"ada": hashed("a")})}
    async with build(settings(alertmanager.url, **flags)) as running:
        request = b"POST /-/reload HTTP/1.0\r\nOrigin: http://evil.example\r\n" + basic("ada:a") + b"\r\n"
        assert status_of(await said(running.admin_port, request, None)) == 403


@LISTENERS
async def test_a_connection_that_is_older_than_the_wish_for_a_certificate_has_to_come_anew(name, doors, alertmanager):
    ours = doors.client(doors.ca.files("prometheus"))
    flags = {SETTING[name]: doors.says(tls_server_config=doors.tls)}
    async with build(settings(alertmanager.url, **flags)) as running:
        opened = await asyncio.open_connection("127.0.0.1", port(running, name), ssl=ours)
        verified(doors)
        reader, writer = opened
        writer.write(ASK[name].replace(b"Connection: close\r\n", b"") + b"\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert (status_of(head), b"\r\nConnection: close\r\n" in head) == (401, True)
        writer.transport.abort()
        assert status_of(await said(port(running, name), ASK[name] + b"\r\n", ours)) == 200


async def test_who_guesses_much_keeps_nobody_else_waiting(monkeypatch):
    compared = []
    monkeypatch.setattr(users.bcrypt, "checkpw", lambda password, _: compared.append(password) or time.sleep(0.01))
    knows, hashes = users.Users(), {"ada": b"x"}

    class Shows:
        def __init__(self, remote: str, password: str) -> None:
            self.remote = remote
            self.headers = {"Authorization": basic(f"ada:{password}").decode()[15:].strip()}

    guesses = [asyncio.create_task(knows.know(Shows("127.0.0.2", f"{n}"), hashes)) for n in range(50)]
    await asyncio.sleep(0)
    await knows.know(Shows("127.0.0.3", "mine"), hashes)
    assert compared.index(b"mine") <= 2
    await asyncio.gather(*guesses)
    assert len(compared) == 51
