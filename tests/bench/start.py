"""From the start of the process to the first alert that was forwarded: the proxy in each mode, side by side with a bare
aiohttp proxy, in turns, in front of one real Alertmanager.

    make bench          prints the medians and their ratios to the bare one; nothing is asserted, machines differ
"""

from __future__ import annotations

import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 7
BODY = b'[{"labels":{"alertname":"A"}}]'
POST = (
    b"POST /api/v2/alerts HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n"
    + f"Content-Length: {len(BODY)}\r\n\r\n".encode()
    + BODY
)
BARE = """
import sys
from aiohttp import ClientSession, web
async def forward(request):
    async with request.app["session"].request(
        request.method, sys.argv[2] + request.path_qs, data=await request.read(),
        headers={"Content-Type": request.content_type},
    ) as answer:
        return web.Response(status=answer.status, body=await answer.read())
async def session(app):
    app["session"] = ClientSession()
    yield
    await app["session"].close()
app = web.Application()
app.cleanup_ctx.append(session)
app.router.add_route("*", "/{path:.*}", forward)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)
"""


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def answered(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as s:
            s.sendall(POST)
            return s.recv(64)[9:12] == b"200"
    except OSError:
        return False


def first_alert(command: list[str], port: int, environ: dict[str, str]) -> float:
    """Return the seconds until a POST is answered with 200."""
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | environ)
    try:
        while not answered(port):
            if time.perf_counter() - begun > 60 or process.poll() is not None:
                raise SystemExit(f"no answer from {command}")
            time.sleep(0.002)
        return time.perf_counter() - begun
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    binary = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
    if binary is None:
        raise SystemExit("no alertmanager on PATH: `make programs` installs it")
    with tempfile.TemporaryDirectory() as home:
        config = Path(home, "alertmanager.yml")
        config.write_text("route: {receiver: none}\nreceivers: [{name: none}]\n")
        upstream = free_port()
        command = [binary, f"--config.file={config}", f"--storage.path={home}", "--cluster.listen-address="]
        alertmanager = subprocess.Popen(
            [*command, f"--web.listen-address=127.0.0.1:{upstream}"], stderr=subprocess.DEVNULL
        )
        try:
            while not answered(upstream):
                time.sleep(0.05)
            measure(f"http://127.0.0.1:{upstream}", home)
        finally:
            alertmanager.terminate()
            alertmanager.wait()


def measure(upstream: str, home: str) -> None:
    port, admin = free_port(), free_port()
    proxy = [sys.executable, "-m", "proxy", f"--alertmanager.url={upstream}"]
    proxy += [f"--web.listen-address=127.0.0.1:{port}", f"--web.admin-listen-address=127.0.0.1:{admin}"]
    proxy.append(f"--storage.path={home}/proxy")
    with_model = {"LLM_ENABLED": "true", "LLM_PROVIDER": "ollama", "LLM_BASE_URL": "http://127.0.0.1:1"}
    cases = {
        "bare aiohttp": ([sys.executable, "-c", BARE, str(port), upstream], {}),
        "transparent": (proxy, {}),
        "enriched, rules": ([*proxy, "--enrichment.mode=enriched"], {}),
        "enriched, model": ([*proxy, "--enrichment.mode=enriched"], with_model),
    }
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(ROUNDS):
        for name, (command, environ) in cases.items():
            seconds[name].append(first_alert(command, port, environ))
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    for name, median in medians.items():
        print(f"{name:16s} {median * 1000:5.0f} ms   x {median / medians['bare aiohttp']:.2f}")


if __name__ == "__main__":
    main()
