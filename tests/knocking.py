"""Doors of listeners, for tests that stand before them: files, certificates, and what comes back from behind."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bcrypt
import pytest
import yaml
from certificates import Authority

from proxy.app import Running

GET = b"GET /-/healthy HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
ASK = {"data": GET.replace(b"healthy", b"x"), "admin": GET}
LISTENERS = pytest.mark.parametrize("name", ["data", "admin"])
SETTING = {"data": "web__config__file", "admin": "web__admin_config__file"}


def hashed(password: str) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()


def basic(credentials: str) -> bytes:
    return b"Authorization: Basic " + base64.b64encode(credentials.encode()) + b"\r\n"


class Doors:
    """Writes files of doors, and knocks at them."""

    def __init__(self, directory: Path) -> None:
        self.ca = Authority(directory)
        self.file = directory / "web.yml"
        self.ca.files("server", "127.0.0.1")
        self.tls = {"cert_file": "server.pem", "key_file": "server.key"}

    def says(self, **config: Any) -> str:
        """Write the file, and return its path."""
        self.file.write_text(yaml.safe_dump(config))
        return str(self.file)

    def client(self, certificate: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca.file)
        if certificate:
            context.load_cert_chain(*certificate)
        return context


def port(running: Running, name: str) -> int:
    return running.data_port if name == "data" else running.admin_port


async def said(port: int, request: bytes, tls: ssl.SSLContext | None) -> bytes:
    """Return all that comes back."""
    async with asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
        try:
            writer.write(request)
            return await reader.read()
        finally:
            writer.transport.abort()


async def metric(running: Running, sample: str, tls: ssl.SSLContext | None = None, header: bytes = b"") -> float:
    raw = await said(running.admin_port, b"GET /metrics HTTP/1.0\r\n" + header + b"\r\n", tls)
    return sum(float(line.rpartition(b" ")[2]) for line in raw.splitlines() if line.startswith(sample.encode()))


async def until(holds: Callable[[], Any], within: float = 20) -> None:
    async with asyncio.timeout(within):
        while not await holds():
            await asyncio.sleep(0.01)


async def has(running: Running, sample: str, value: float) -> bool:
    return await metric(running, sample) == value


def verified(doors: Doors, **more: Any) -> str:
    asked = {"client_auth_type": "RequireAndVerifyClientCert", "client_ca_file": "ca.pem"}
    return doors.says(tls_server_config=doors.tls | asked | more)
