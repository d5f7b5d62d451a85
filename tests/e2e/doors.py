"""How clients come in at the proxy: scheme, certificate and credentials, said once for every program that asks.

The tests that use the fixture `door` run once for each door, and say nothing of it themselves:

    async with proxy(am.url, tmp_path, *door.flags) as px:
        await run_amtool(door.url(px.target), *door.amtool(tmp_path))
"""

from __future__ import annotations

import json
import ssl
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from certificates import Authority, public_key_of
from fakes import body

USER, PASSWORD = "ada", "hunter2-canary"
HASH = "$2b$04$3EF6b/1GMxMfooasoqSCP.GEsYuHGoNTLm9c/rABm8AmElf8favj."
"""Of the password, by bcrypt."""


@dataclass(frozen=True, slots=True)
class Door:
    flags: tuple[str, ...] = ()
    """Of the proxy: what makes its data listener this door."""
    scheme: str = "http"
    tls: dict[str, Any] = field(default_factory=dict)
    """What clients must know of TLS, as Prometheus and amtool write it: `tls_config`."""
    credentials: dict[str, Any] = field(default_factory=dict)
    """What clients must say to come in, likewise: `basic_auth` or `authorization`."""
    browser: tuple[str, ...] = ()
    """Flags of Chromium that make it trust the certificate."""
    session: Callable[[], aiohttp.ClientSession] = aiohttp.ClientSession
    """Return a client that can come in."""
    userinfo: str = ""
    """`name:password@`, for the address that a person types."""

    def url(self, target: str) -> str:
        """Return where `host:port` is asked."""
        return f"{self.scheme}://{target}"

    def page(self, target: str) -> str:
        """Return what a person types to see the pages of `host:port`."""
        return f"{self.scheme}://{self.userinfo}{target}"

    async def send(self, target: str, *alerts: dict[str, Any], path: str = "/api/v2/alerts") -> int:
        """POST alerts as Prometheus does, and return the status."""
        headers = {"Content-Type": "application/json"}
        async with (
            self.session() as client,
            client.post(self.url(target) + path, data=body(*alerts), headers=headers) as answered,
        ):
            return answered.status

    def amtool(self, directory: Path) -> list[str]:
        """Return amtool's flags, after writing the file that they name, if any, into `directory`."""
        if not (self.tls or self.credentials):
            return []
        file = Path(tempfile.mkdtemp(prefix="door-", dir=directory)) / "http.yml"
        file.write_text(json.dumps(self.tls | self.credentials))
        return [f"--http.config.file={file}"]

    def prometheus(self) -> dict[str, Any]:
        """Return what stands beside the targets, of Alertmanagers and of scrapes, in prometheus.yml."""
        return {"scheme": self.scheme, **self.tls, **self.credentials}


def plain(_: Path) -> Door:
    """Return a door that is open to all."""
    return Door()


def locked(directory: Path) -> Door:
    """Return a door of TLS where a user is asked for, and a client's certificate checked if it shows one.

    A person's browser shows none, the programs do.
    """
    ca = Authority(directory)
    server, key = ca.files("server", "127.0.0.1")
    client, client_key = ca.files("client", "client.example")
    file = directory / "web.yml"
    tls_server = {
        "cert_file": server.name, "key_file": key.name, "client_auth_type": "VerifyClientCertIfGiven",
        "client_ca_file": ca.file.name, "client_allowed_sans": ["client.example"],
    }  # fmt: skip
    file.write_text(json.dumps({"tls_server_config": tls_server, "basic_auth_users": {USER: HASH}}))

    def session() -> aiohttp.ClientSession:
        context = ssl.create_default_context(cafile=ca.file)
        context.load_cert_chain(client, client_key)
        connector = aiohttp.TCPConnector(ssl=context)
        headers = {"Authorization": aiohttp.encode_basic_auth(USER, PASSWORD)}
        return aiohttp.ClientSession(connector=connector, headers=headers)

    return Door(
        flags=(f"--web.config.file={file}",),
        scheme="https",
        tls={"tls_config": {"ca_file": str(ca.file), "cert_file": str(client), "key_file": str(client_key)}},
        credentials={"basic_auth": {"username": USER, "password": PASSWORD}},
        browser=(f"--ignore-certificate-errors-spki-list={public_key_of(server)}",),
        session=session,
        userinfo=f"{USER}:{PASSWORD}@",
    )


DOORS = {"plain": plain, "locked": locked}
"""Each makes a door, and may keep files in a directory."""
