"""A start with a full SQLite file beside one with an empty one: the first alert forwarded, and all decisions taken up.

python tests/bench/full_store.py
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fakes import body, exchange, fake_alertmanager, post, posted, status_of

from proxy.alert import Alert
from proxy.decisions.decision import Decision
from proxy.decisions.store import Kept
from proxy.decisions.stores.sqlite import SqliteStore

MANY = 100_000
NAMES = ("first alert forwarded", "all decisions taken up", "longest POST meanwhile")


def labels(n: int) -> dict[str, str]:
    pod = f"checkout-{n % 997:04d}-{n:08x}"
    return {"alertname": f"Alert{n % 200}", "namespace": "shop", "pod": pod, "severity": "warning", "job": "kubelet"}


def decided(n: int) -> Kept:
    alert = Alert(labels(n))
    ours = {"ai_severity": "info", "ai_category": "capacity"}
    text = {"ai_source": "llm", "ai_summary": "A pod asks for more than its node has."}
    return Kept(Decision(alert.identity, ours, text), secrets.randbits(62) + 1, 86400.0, json.dumps(dict(alert.labels)))


async def fill(path: Path) -> None:
    async with SqliteStore(path, timeout=60) as store:
        for at in range(0, MANY, 1000):
            await store.claim([decided(n) for n in range(at, at + 1000)])


async def measure(path: Path, expected: int) -> list[float]:
    async with fake_alertmanager() as am:
        port, admin = 19395, 19396
        flags = [f"--web.listen-address=127.0.0.1:{port}", f"--web.admin-listen-address=127.0.0.1:{admin}"]
        flags += [f"--alertmanager.url={am.url}", f"--store.url=sqlite:{path}", "--enrichment.mode=enriched"]
        begun = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "proxy", *flags, stderr=asyncio.subprocess.DEVNULL
        )
        first = taken_up = longest = 0.0
        try:
            while not taken_up:
                at = time.perf_counter()
                try:
                    known = posted(**labels(expected - 1)) if expected else posted()
                    assert status_of(await exchange(port, post(body(known, posted(f"New{time.time()}"))))) == 200
                except OSError:
                    await asyncio.sleep(0.01)
                    continue
                now = time.perf_counter()
                first, longest = first or now - begun, max(longest, now - at)
                head = f"GET /api/v1/status HTTP/1.1\r\nHost: 127.0.0.1:{admin}\r\nConnection: close\r\n\r\n"
                raw = await exchange(admin, head.encode())
                status = json.loads(raw.partition(b"\r\n\r\n")[2])
                if status["alertmanager"]["recovered"] and status["decisions"]["living"] >= expected:
                    taken_up = time.perf_counter() - begun
            if expected:
                assert am.posts[-1].alerts[0]["labels"]["ai_severity"] == "info", "what the store held holds"
        finally:
            process.terminate()
            await process.wait()
        return [first, taken_up, longest]


async def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        full = Path(home, "full.db")
        await fill(full)
        empty_took = await measure(Path(home, "empty.db"), 0)
        full_took = await measure(full, MANY)
    for name, one, other in zip(NAMES, empty_took, full_took, strict=True):
        print(f"{name:24s} empty {one:5.2f} s   with {MANY:,} decisions {other:5.2f} s   x {other / one:.1f}")


if __name__ == "__main__":
    asyncio.run(main())
