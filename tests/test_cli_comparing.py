"""`classify --models`: models asked side by side through the real worker, and what is left of an interrupted run."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import signal
import termios
from collections import Counter
from pathlib import Path

import pytest
from classify_command import classify, installed, no_store, started
from fake_provider import FakeProvider, Slow, Status, Text, verdict
from fakes import body, posted
from own_classifiers import ROGUE, install
from whole import alertname
from workers import SECRET, gone

pytestmark = pytest.mark.usefixtures("a_directory_of_its_own")


def write(*alerts: object) -> None:
    Path("alerts.json").write_bytes(body(*alerts))


class Answers:
    """`steady` says the same always, `changing` something else each second time, `wrong` has the wrong key."""

    def __init__(self) -> None:
        self.asked: Counter[tuple[str, str]] = Counter()

    def __call__(self, request) -> Text | Status | Slow:
        model, name = request.json["model"], alertname(request)
        self.asked[model, name] += 1
        if model == "wrong":
            return Status(401)
        if model == "steady":
            return verdict(severity="critical", category="storage")
        second = self.asked[model, name] == 2
        answer = verdict(severity="info" if second else "critical", category="storage" if name == "Disk" else "errors")
        return Slow(answer, 0.2)


async def test_models_are_compared_side_by_side():
    write(
        posted("Disk", severity="page", pod="a"), posted("Disk", severity="page", pod="b"), posted("Slow", team="db"),
        posted("Odd") | {"annotations": None},
    )  # fmt: skip
    answers = Answers()
    async with FakeProvider(answers) as provider:
        names = [f"openai/{name}@{provider.url}" for name in ("steady", "changing", "wrong")]
        models = ["openai/steady", "openai/changing", names[2], "rules"]
        flags = ["--repeat=3", "-o", "json", "--llm.prices=steady=2/10", f"--llm.base-url={provider.url}"]
        done = await classify("alerts.json", f"--models={','.join(models)}", *flags)
    found = done.json
    steady, changing, wrong, rules = found["models"]
    assert [one["name"] for one in found["models"]] == models
    assert answers.asked == {(model, name): 3 for model in ("steady", "changing", "wrong") for name in ("Disk", "Slow")}
    assert (found["alerts"], found["left_out"], found["repeat"], found["interrupted"]) == (3, 1, 3, False)
    assert found["calls"] == {"planned": 24, "ended": 24}

    disk, slow = found["classes"]
    assert (disk["alertname"], disk["author_severity"], disk["alerts"], disk["agree"]) == ("Disk", "critical", 2, True)
    assert (slow["alertname"], slow["author_severity"], slow["alerts"], slow["agree"]) == ("Slow", None, 1, False)
    said = {"severity": "critical", "category": "storage", "confidence": "high", "of": 3, "failed": 0}
    assert disk["verdicts"]["openai/steady"] == said | {"times": 3}
    assert disk["verdicts"]["openai/changing"] == said | {"times": 2}
    assert slow["verdicts"]["openai/changing"] == said | {"times": 2, "category": "errors"}
    nothing = {"severity": None, "category": None, "confidence": None, "times": 0, "of": 0, "failed": 3}
    assert disk["verdicts"][names[2]] == nothing

    assert (steady["asked"], steady["verdicts"], steady["failed"], steady["self_agreement"]) == (6, 6, [], 1.0)
    assert changing["self_agreement"] == 4 / 6
    assert steady["agreement"]["author"] == {"classes": 1, "severity": 1.0, "category": None, "both": None}
    half = {"classes": 2, "severity": 1.0, "category": 0.5, "both": 0.5}
    assert steady["agreement"]["models"]["openai/changing"] == half == changing["agreement"]["models"]["openai/steady"]
    assert steady["agreement"]["models"][names[2]]["classes"] == 0
    assert steady["agreement"]["rules"] == steady["agreement"]["models"]["rules"]
    assert rules["agreement"]["rules"] == {"classes": 2, "severity": 1.0, "category": 1.0, "both": 1.0}
    assert changing["latency_seconds"]["max"] >= changing["latency_seconds"]["p50"] >= 0.2
    assert wrong["latency_seconds"] == {"p50": None, "max": None}

    assert steady["tokens"] == {"input": 6 * 480, "output": 6 * 90}
    assert steady["cost_usd"] == pytest.approx(6 * (480 * 2 + 90 * 10) / 1e6)
    assert steady["cost_per_1000_usd"] == pytest.approx((480 * 2 + 90 * 10) / 1e3)
    assert (changing["requests"], changing["cost_usd"], changing["cost_per_1000_usd"]) == (6, None, None)
    assert (rules["tokens"], rules["cost_per_1000_usd"]) == ({"input": 0, "output": 0}, 0.0)
    assert (wrong["tokens"], wrong["cost_usd"]) == ({"input": None, "output": None}, None)

    (failed,) = wrong["failed"]
    refused = "AuthenticationError 401, the key is refused: check llm.api_key"
    assert failed == {"reason": "rejected", "error": refused, "calls": 6}
    assert f"{names[2]} gave no verdict at all: rejected: {refused} (6 calls)\n" in done.err
    assert done.code == 1
    assert "\r" not in done.err, "no bar where there is no terminal"
    keys = {request.json["model"]: request.key for request in provider.requests}
    assert keys["steady"] == keys["wrong"] == SECRET, "of the configured provider"
    assert 2 <= provider.most_at_once <= 4, "as llm.concurrency says"
    assert no_store()


async def test_failures_are_results_and_a_hanging_model_holds_up_no_other():
    installed()
    write(posted("Good"), posted("Hangs"), posted("Counted"))
    done = await classify("alerts.json", "--models=rules,classifier/rogue", "--llm.timeout=1s", "-o", "json")
    rules, rogue = done.json["models"]
    assert rogue["failed"] == [{"reason": "timeout", "error": "no answer in time", "calls": 1}]
    assert (rogue["asked"], rogue["verdicts"], rogue["self_agreement"]) == (3, 2, None)
    assert rogue["agreement"]["rules"]["classes"] == 2, "the class that failed is left out"
    assert (rogue["tokens"], rogue["cost_usd"]) == ({"input": 700, "output": 90}, 0.25)
    assert (rules["tokens"], rules["cost_usd"]) == ({"input": 0, "output": 0}, 0.0)
    assert rogue["cost_per_1000_usd"] is None, "one of the two verdicts has no price"
    assert done.code == 0, "it gave a verdict on something"


async def test_the_time_that_a_worker_takes_to_load_is_not_the_models():
    install(Path("installed"), "import time\ntime.sleep(1.5)\n" + ROGUE, {"slow": "slow:Rogue"}, "slow")
    write(posted("Good"))
    name = ["--llm.enabled", "--llm.provider=classifier", "--llm.model=slow"]
    done, compared = await asyncio.gather(
        classify("alerts.json", "--llm.timeout=1s", *name),
        classify("alerts.json", "--llm.timeout=1s", "--models=classifier/slow"),
    )
    assert (done.code, done.err) == (0, "")
    assert (compared.code, compared.err) == (0, "")


async def test_a_model_that_lacks_its_key_is_said_to_and_nothing_is_loaded_for_it():
    write(posted("Disk"))
    done = await classify("alerts.json", "--models=groq/x,openai/y,rules", key="")
    assert done.code == 1
    assert "\ngroq/x failed: unusable: no API key; set GROQ_API_KEY\n" in done.out
    assert done.err == (
        "groq/x gave no verdict at all: unusable: no API key; set GROQ_API_KEY\n"
        "openai/y gave no verdict at all: unusable: no API key; set LLM_API_KEY or OPENAI_API_KEY\n"
    )


async def test_without_alerts_there_is_nothing_to_compare():
    write()
    done = await classify("alerts.json", "--models=groq/x,rules")
    assert (done.code, done.out, done.err) == (0, "no alerts\n", "")


def children(pid: int) -> list[int]:
    return [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]


async def test_interrupted_it_prints_what_is_known_and_leaves_no_process(tmp_path):
    installed()
    write(posted("Good"), posted("Hangs"))
    ours, its = pty.openpty()
    termios.tcsetwinsize(its, (24, 80))
    process = await started("alerts.json", "--models=classifier/rogue", "-o", "json", stderr=its)
    os.close(its)
    shown = b""
    try:
        async with asyncio.timeout(60):
            while b"1/2" not in shown:
                shown += await asyncio.to_thread(os.read, ours, 1000)
        (worker,) = children(process.pid)
        process.send_signal(signal.SIGINT)
        out, _ = await asyncio.wait_for(process.communicate(), 30)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        os.close(ours)
    await gone(worker)
    found = json.loads(out)
    assert process.returncode == 130
    assert b"call" in shown, "a bar, on a terminal"
    assert (found["interrupted"], found["calls"]) == (True, {"planned": 2, "ended": 1})
    good, hangs = found["classes"]
    assert good["verdicts"]["classifier/rogue"]["of"] == 1
    assert hangs["verdicts"]["classifier/rogue"]["of"] == hangs["verdicts"]["classifier/rogue"]["failed"] == 0


async def test_interrupted_without_models_it_leaves_no_process_either():
    installed()
    write(posted("Hangs"))
    flags = ["--llm.enabled", "--llm.provider=classifier", "--llm.model=rogue"]
    process = await started("alerts.json", *flags)
    async with asyncio.timeout(60):
        while not (found := children(process.pid)):
            await asyncio.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = await asyncio.wait_for(process.communicate(), 30)
    await gone(found[0])
    assert (process.returncode, out, err) == (130, b"", b"")
