"""What a crowd costs: the memory that long bodies take, packed ones, and how much longer a good client waits beside
slow ones. The proxy and Alertmanager are the real programs; the crowd is a process of its own.

    python tests/bench/connections.py      prints sizes and ratios; nothing is asserted, machines differ
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))
sys.path.insert(0, str(Path(__file__).parents[2]))

import real
import yaml
from certificates import Authority
from fakes import FakeAlertmanager, answer, body, exchange, fake_alertmanager, post, posted, status_of

MIB = 1 << 20
BODIES = 100
LENGTH = 16 * MIB
BOMB = 64 * MIB
IDLE = 1000
SLOW = 200
ROUNDS = 5
POSTS = 200
"""In a round of each kind."""
CONFIG = {"route": {"receiver": "none"}, "receivers": [{"name": "none"}]}
LENGTHY = b"Content-Length: %d\r\nContent-Type: application/json\r\n\r\n"


def memory(of: real.Program, which: str = "VmHWM") -> float:
    """Return the most memory that a process ever had resident, in MiB."""
    status = Path(f"/proc/{of.process.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith(which))) / 1024


def port(of: real.Program) -> int:
    return int(of.url.rsplit(":", 1)[1])


def long_body() -> bytes:
    """A POST of LENGTH bytes, alerts with 10 kB each."""
    one = posted("Long", filler="x" * 10_000)
    count = LENGTH // (len(body(one)) + 10)
    return body(*({**one, "labels": {**one["labels"], "pod": f"p{n}"}} for n in range(count)))


async def sent(to: int, content: bytes) -> int:
    """POST in pieces, so that the sender is not what takes time; return the status, 0 for none."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        reader, writer = await asyncio.open_connection("127.0.0.1", to)
        head, view = post(content), memoryview(content)
        writer.write(head[: len(head) - len(content)])
        for at in range(0, len(content), MIB):
            writer.write(view[at : at + MIB])
            await writer.drain()
        raw = await reader.read()
        writer.close()
        return status_of(raw) if raw else 0
    return 0


@contextlib.asynccontextmanager
async def proxy(upstream: str, home: Path, *flags: str) -> AsyncIterator[real.Proxy]:
    """Run a proxy that has forwarded a POST."""
    async with real.proxy(upstream, home, "--log.level=error", *flags) as running:
        await exchange(port(running), post(body(posted())))
        yield running


async def long_bodies(binary: str, home: Path) -> None:
    print(f"{BODIES} POSTs of {LENGTH // MIB} MiB at once, real Alertmanager: resident memory of the proxy at most")
    content = long_body()
    for mode in ("transparent", "enriched"):
        async with (
            real.alertmanager(binary, CONFIG, home) as upstream,
            # A minute, so that what is measured is not how many an Alertmanager takes on two cores.
            proxy(upstream.url, home, f"--enrichment.mode={mode}", "--alertmanager.timeout=60s") as running,
        ):
            before, begun = memory(running), time.perf_counter()
            found = await asyncio.gather(*(sent(port(running), content) for _ in range(BODIES)))
            took = time.perf_counter() - begun
            statuses = {status: found.count(status) for status in sorted(set(found))}
            print(
                f"  {mode:12s} {before:4.0f} MiB before, {memory(running):4.0f} MiB; {took:.0f} s, answers {statuses}"
            )


async def one_body(binary: str, home: Path) -> None:
    print(f"one POST of {LENGTH // MIB} MiB, enriched")
    async with (
        real.alertmanager(binary, CONFIG, home) as upstream,
        proxy(upstream.url, home, "--enrichment.mode=enriched") as running,
    ):
        before = memory(running)
        status = await sent(port(running), long_body())
        labelled = sum("ai_severity" in one["labels"] for one in await real.get(f"{upstream.url}/api/v2/alerts"))
        print(f"  {before:4.0f} MiB before, {memory(running):4.0f} MiB; answer {status}, {labelled} alerts labelled")


async def bombs(home: Path) -> None:
    print(f"a body of {BOMB // MIB} MiB packed by gzip: resident memory of the proxy at most")
    packed = gzip.compress(bytes(BOMB))
    head = b"POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Encoding: gzip\r\n" + LENGTHY % len(
        packed
    )

    async def posted_to(running: real.Proxy, path: bytes) -> None:
        await exchange(port(running), head % path + packed)

    async def to_admin(running: real.Proxy) -> None:
        await exchange(int(running.admin.rsplit(":", 1)[1]), head % b"/enrichment/mode" + packed)

    async def answered(running: real.Proxy) -> None:
        await exchange(port(running), b"GET /bomb HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")

    async def answered_to_alerts(running: real.Proxy) -> None:
        await exchange(port(running), post(b"[]", "/bomb/api/v2/alerts"))

    cases: dict[str, Callable[[real.Proxy], Awaitable[None]]] = {
        "POST of alerts": lambda running: posted_to(running, b"/api/v2/alerts"),
        "another POST": lambda running: posted_to(running, b"/api/v2/silences"),
        "POST to the admin listener": to_admin,
        "answer to a GET": answered,
        "answer to a POST of alerts": answered_to_alerts,
        "answer to our own question": lambda _: asyncio.sleep(1),
    }
    bomb = answer("200 OK", packed, Content_Encoding="gzip", Content_Type="application/json")
    for name, burst in cases.items():
        async with fake_alertmanager() as upstream:
            upstream.respond = lambda received: bomb if "/bomb" in received.line else answer("200 OK")
            async with proxy(upstream.url, home, "--enrichment.mode=enriched") as quiet:
                before = memory(quiet)
            held(upstream, bomb, name)
            async with proxy(upstream.url, home, "--enrichment.mode=enriched") as running:
                await burst(running)
                print(f"  {name:28s} {memory(running) - before:+5.1f} MiB")


def held(upstream: FakeAlertmanager, bomb: bytes, name: str) -> None:
    if "our own" in name:
        upstream.held = bomb


def trusting(ca: str) -> ssl.SSLContext | None:
    """Return how a client speaks to a server of that CA; plainly if it is none."""
    return ssl.create_default_context(cafile=ca) if ca else None


async def crowd(to: int, ca: str) -> None:
    """Be a thousand idle connections and two hundred slow bodies, until standard input ends."""
    tls = trusting(ca)
    idle = [await asyncio.open_connection("127.0.0.1", to, ssl=tls) for _ in range(IDLE)]
    for reader, writer in idle:
        writer.write(b"GET /-/ready HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.read(1)
    slow = [(await asyncio.open_connection("127.0.0.1", to, ssl=tls))[1] for _ in range(SLOW)]
    for writer in slow:
        writer.write(b"POST /api/v2/alerts HTTP/1.1\r\nHost: x\r\n" + LENGTHY % MIB + b"[")
    print(flush=True)
    ended = asyncio.create_task(asyncio.to_thread(sys.stdin.readline))
    while not ended.done():
        for n, writer in enumerate(slow):
            writer.write(b" ")
            await asyncio.sleep(1 / SLOW if n % 10 else 0)
    for _, writer in idle:
        writer.transport.abort()
    for writer in slow:
        writer.transport.abort()


async def milliseconds(to: int, content: bytes, ca: str) -> list[float]:
    """Return what each of the POSTs of a round takes, over one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", to, ssl=trusting(ca))
    request, found = post(content, close=False), []
    for _ in range(POSTS):
        begun = time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        found.append((time.perf_counter() - begun) * 1000)
        assert status_of(head) == 200
        await asyncio.sleep(0.005)
    writer.close()
    return found


async def beside_a_crowd(binary: str, home: Path) -> None:
    print(f"a POST of 64 alerts alone, and beside {IDLE} idle connections and {SLOW} slow bodies")
    content = body(*(posted(f"Known{n}", instance=f"10.0.0.{n}:9100") for n in range(64)))
    authority = Authority(home)
    authority.files("server", "127.0.0.1")
    (home / "web.yml").write_text(
        yaml.safe_dump({"tls_server_config": {"cert_file": "server.pem", "key_file": "server.key"}})
    )
    for mode, ca in (("transparent", ""), ("enriched", ""), ("enriched", str(authority.file))):
        door = [f"--web.config.file={home / 'web.yml'}"] if ca else []
        async with (
            real.alertmanager(binary, CONFIG, home) as upstream,
            real.proxy(upstream.url, home, "--log.level=error", f"--enrichment.mode={mode}", *door) as running,
        ):
            await milliseconds(port(running), content, ca)  # so that all is known
            quiet: list[float] = []
            beside: list[float] = []
            for _ in range(ROUNDS):
                quiet += await milliseconds(port(running), content, ca)
                with subprocess.Popen(  # noqa: ASYNC220 # nothing else runs while it starts
                    [sys.executable, __file__, "--be-the-crowd", str(port(running)), ca],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                ) as others:
                    await asyncio.to_thread(others.stdout.readline)  # type: ignore[union-attr]
                    beside += await milliseconds(port(running), content, ca)
                    others.communicate(b"\n")
        ratios = [theirs / mine for mine, theirs in zip(quantiles(quiet), quantiles(beside), strict=True)]
        alone, name = quantiles(quiet), mode + (", TLS" if ca else "")
        print(
            f"  {name:13s} alone p50 {alone[0]:.1f} ms, p99 {alone[1]:.1f} ms; beside them x {ratios[0]:.2f}, "
            f"x {ratios[1]:.2f}"
        )


def quantiles(found: list[float]) -> tuple[float, float]:
    hundredths = statistics.quantiles(found, n=100)
    return hundredths[49], hundredths[98]


async def main() -> None:
    binary = real.alertmanagers()[0]
    with tempfile.TemporaryDirectory() as home:
        parts = {
            "long": lambda: long_bodies(binary, Path(home)),
            "one": lambda: one_body(binary, Path(home)),
            "bombs": lambda: bombs(Path(home)),
            "crowd": lambda: beside_a_crowd(binary, Path(home)),
        }
        for name in sys.argv[1:] or parts:
            await parts[name]()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--be-the-crowd"]:
        asyncio.run(crowd(int(sys.argv[2]), sys.argv[3]))
    else:
        asyncio.run(main())
