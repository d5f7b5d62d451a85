"""A real Alertmanager that wants TLS, a certificate and a password, and nobody beside the proxy who has them."""

from __future__ import annotations

import asyncio
import subprocess
from contextlib import AsyncExitStack
from pathlib import Path

import yaml
from certificates import Authority
from doors import HASH, PASSWORD
from fakes import posted
from ports import free_port
from real import alertmanager, get, metric, proxy, send, webhook
from test_identity import routing


async def test_an_alertmanager_behind_tls_a_certificate_and_a_password(am_binary, tmp_path: Path):
    ca = Authority(tmp_path)
    cert, key = ca.files("alertmanager", "127.0.0.1")
    ours, our_key = ca.files("proxy")
    (tmp_path / "password").write_text(PASSWORD + "\n")
    (tmp_path / "web.yml").write_text(
        yaml.safe_dump(
            {
                "tls_server_config": {
                    "cert_file": str(cert),
                    "key_file": str(key),
                    "client_auth_type": "RequireAndVerifyClientCert",
                    "client_ca_file": str(ca.file),
                },
                "basic_auth_users": {"ada": HASH},
            }
        )
    )
    port = free_port()
    async with AsyncExitStack() as stack:
        hook = await stack.enter_async_context(webhook())
        px = await stack.enter_async_context(
            proxy(
                f"https://127.0.0.1:{port}",
                tmp_path,
                "--enrichment.mode=enriched",
                f"--alertmanager.tls-config.ca-file={ca.file}",
                f"--alertmanager.tls-config.cert-file={ours}",
                f"--alertmanager.tls-config.key-file={our_key}",
                "--alertmanager.basic-auth.username=ada",
                f"--alertmanager.basic-auth.password-file={tmp_path / 'password'}",
            )
        )
        wants = f"--web.config.file={tmp_path / 'web.yml'}"
        through = f"{px.url}/-/ready"  # nobody else can ask
        await stack.enter_async_context(
            alertmanager(am_binary, routing(hook.url), tmp_path, wants, port=port, ready=through)
        )
        async with asyncio.timeout(60):
            while await metric(px.admin, "aiproxy_recovery_last_success") != 1:
                await asyncio.sleep(0.2)
        assert await send(px.url, posted("Behind", severity="critical")) == 200
        [held] = await get(f"{px.url}/api/v2/alerts")
        assert held["labels"]["ai_severity"] == "critical"
        asked = await asyncio.to_thread(
            subprocess.run,
            ["amtool", f"--alertmanager.url={px.url}", "alert", "query", "-o", "simple"],
            capture_output=True, text=True, timeout=30, check=True,
        )  # fmt: skip
        assert "Behind" in asked.stdout
        async with asyncio.timeout(30):
            while not hook.told("firing", "Behind", "critical"):
                await asyncio.sleep(0.1)
        assert PASSWORD not in px.log.read_text() + am_log(tmp_path)


def am_log(directory: Path) -> str:
    return "".join(log.read_text() for log in directory.glob("alertmanager-*/log"))
