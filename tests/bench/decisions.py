"""What remembering costs: memory for each living decision, and time for each alert that is known.

    python tests/bench/decisions.py     prints both; nothing is asserted, machines differ

Each figure is from a process of its own: memory that was used before would be used again.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
import tracemalloc
from datetime import UTC, datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from proxy.alert import Alert
from proxy.decisions.decision import Decision
from proxy.decisions.living import Living

SIZES = (1_000, 10_000, 100_000)
CLASSES = 200
"""Alertnames; alerts of one share a verdict, and so its text."""
KNOWN = 50_000
"""Questions after known alerts, of which the fastest of `ROUNDS` rounds counts."""
ROUNDS = 5


def alert(n: int) -> Alert:
    """An alert of about 400 bytes of labels, as kube-prometheus has them; not two strings of it are shared."""
    now = datetime.now(UTC)
    labels = {
        "alertname": f"KubePodCrashLooping{n % CLASSES}",
        "cluster": "production-europe-west-1",
        "container": f"worker-{n % 7}",
        "endpoint": "https-metrics",
        "instance": f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}:8443",
        "job": "kube-state-metrics",
        "namespace": f"team-{n % 50}-production",
        "pod": f"checkout-service-{n:07d}-5d9c7b8f6d-x{n:06d}",
        "reason": "CrashLoopBackOff",
        "severity": "warning",
        "uid": f"0b7f6a52-0000-4000-8000-{n:012d}",
    }
    return Alert(labels, starts_at=now, ends_at=now + timedelta(minutes=4))


def decision(alert: Alert) -> Decision:
    """What a model would have said of the class: made anew for each alert, as when it is loaded from a store."""
    labels = {"ai_severity": "warning", "ai_category": "availability"}
    text = {
        "ai_confidence": "high",
        "ai_summary": f"Containers of {alert.name} start and end again and again, most likely for a missing setting.",
        "ai_recommendations": "1. Look at the log of the container that ended. 2. Compare with the last deployment.",
        "ai_model": "openai/gpt-4o",
        "ai_source": "llm",
    }
    return Decision(alert.identity, labels, text)


def filled(size: int) -> Living:
    living = Living(capacity=size)
    for n in range(size):
        one = alert(n)
        living.add(living.candidate(decision(one), one), one)
    for told in living.take_unkept(size):
        living.kept(told, told)
    return living


def resident() -> int:
    """Bytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def memory(size: int) -> dict[str, float]:
    """Bytes for each decision: as Python allocated them, and as the process grew."""
    filled(100)
    gc.collect()
    before = resident()
    living = filled(size)
    gc.collect()
    grown = (resident() - before) / size
    assert len(living) == size
    del living
    gc.collect()
    tracemalloc.start()
    living = filled(size)
    gc.collect()
    allocated = tracemalloc.get_traced_memory()[0] / size
    lines = tracemalloc.take_snapshot().statistics("lineno")[:6]
    assert len(living) == size
    for line in lines:
        frame = line.traceback[0]
        print(f"    {line.size / size:6.0f} B  {Path(frame.filename).name}:{frame.lineno}", file=sys.stderr)
    return {"allocated": allocated, "grown": grown, "labels": len(json.dumps(dict(alert(size).labels)))}


def known(size: int) -> dict[str, float]:
    """Microseconds to find the decision on an alert that is known, without reading it from the wire."""
    living = filled(size)
    step = max(1, size // 1000)
    asked = [alert(n) for n in range(0, size, step)][:1000]
    fastest = float("inf")
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        for _ in range(KNOWN // len(asked)):
            for one in asked:
                living.seen(one)
        fastest = min(fastest, time.perf_counter() - begun)
    return {"microseconds": fastest / (KNOWN // len(asked) * len(asked)) * 1e6}


def apart(what: str, size: int) -> dict[str, float]:
    done = subprocess.run([sys.executable, __file__, what, str(size)], stdout=subprocess.PIPE, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    if len(sys.argv) == 3:
        measure = {"memory": memory, "known": known}[sys.argv[1]]
        print(json.dumps(measure(int(sys.argv[2]))))
        return
    found = apart("memory", SIZES[-1])
    print(f"memory for each of {SIZES[-1]} living decisions, labels of {found['labels']:.0f} B, {CLASSES} classes")
    print(f"  allocated  {found['allocated']:6.0f} B")
    print(f"  resident   {found['grown']:6.0f} B")
    print("time for each known alert")
    first = 0.0
    for size in SIZES:
        took = apart("known", size)["microseconds"]
        first = first or took
        print(f"  {size:7d} living  {took:6.2f} µs   x {took / first:.2f}")


if __name__ == "__main__":
    main()
