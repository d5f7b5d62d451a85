"""`classify` with a model: the verdicts that a proxy would give, and why the rules stood in."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from classify_command import classify, installed, no_store
from configuring import REPOSITORY
from fake_provider import Answer, FakeProvider, Pause, Status, verdict
from fakes import an_alert, body, posted
from whole import alertname

from proxy import cli
from proxy.app import one_off
from proxy.classification.queue import WAITING_LIMIT
from proxy.classification.worker.listed import may_be_known
from proxy.config import Settings

pytestmark = pytest.mark.usefixtures("a_directory_of_its_own")

RULES = "version: 1\noverrides:\n  Known: {category: security}\n"


@pytest.fixture
def a_table() -> str:
    Path("my-rules.yaml").write_text(RULES, encoding="utf-8")
    return "my-rules.yaml"


def write(*alerts: object) -> None:
    Path("alerts.json").write_bytes(body(*alerts))


def judged(request) -> Answer:
    match alertname(request), request.json["model"]:
        case "Refused", _:
            return Status(403)
        case "Late", _:
            words = Pause(verdict(severity="info", summary="Said at last.").text, '"summary"')
            asyncio.get_running_loop().call_later(0.5, words.release.set)
            return words
        case "Unsure", _:
            return verdict(severity="critical", confidence="low", summary="A guess.")
        case "Second", "gpt-4o":
            return Status(404)
        case "Second", _:
            return verdict(severity="info", category="network")
    return verdict(severity="info", category="storage", summary="Full\x1b[31m.")


async def test_it_says_what_a_proxy_would_say(a_table):
    odd = posted("Odd") | {"annotations": None}
    write(
        posted("Disk", severity="critical", pod="a"),
        posted("Disk", severity="critical", pod="b"),
        posted("Known"),
        posted("Unsure", severity="page"),
        posted("Refused"),
        posted("Second"),
        posted("Late"),
        odd,
        {"labels": {}},
    )
    async with FakeProvider(judged) as provider:
        flags = ["--llm.enabled", f"--llm.base-url={provider.url}", f"--rules.file={a_table}"]
        flags += ["--llm.fallbacks=openai/spare", "--llm.min-confidence=medium", "--llm.max-retries=0"]
        done = await classify("alerts.json", "-o", "json", *flags, "--llm.budget.tokens-per-day=1000")
    floored, same, known, unsure, refused, second, late, aside, unread = done.json
    assert done.code == 0
    assert (floored["severity"], floored["category"], floored["source"]) == ("critical", "storage", "llm")
    assert (floored["model"], floored["rule"], floored["explained"], floored["reason"]) == ("gpt-4o", "", None, "")
    assert floored["summary"] == "Full ."
    assert {**floored, "fingerprint": ""} == {**same, "fingerprint": ""}
    assert floored["fingerprint"] != same["fingerprint"]
    assert (known["category"], known["source"]) == ("security", "llm")
    assert (unsure["severity"], unsure["source"], unsure["reason"]) == ("critical", "rules", "unsure")
    assert unsure["explained"]["severity"] == {"by": "author", "at": "severity=page"}
    assert (unsure["rule"], unsure["summary"], unsure["model"]) == ("default", "A guess.", "gpt-4o")
    assert (refused["source"], refused["rule"], refused["reason"]) == ("rules", "operation-failing", "rejected")
    assert refused["error"].endswith(
        "403, the key is refused, or may not use the model: check llm.api_key and llm.model"
    )
    assert (second["severity"], second["model"], second["reason"]) == ("info", "spare", "")
    assert (late["severity"], late["summary"]) == ("info", "Said at last."), "its labels came first"
    assert aside["why_nothing"] == "it is written as Prometheus would not write it"
    assert unread["why_nothing"].startswith("its labels: ")
    asked = Counter(alertname(request) for request in provider.requests)
    assert asked == {"Disk": 1, "Known": 1, "Unsure": 1, "Refused": 2, "Second": 2, "Late": 1}, (
        "a class once, a fallback if need be"
    )
    assert no_store(), "and the caps are not this command's"


async def test_a_model_that_has_nothing_to_say_is_told_of_and_the_rules_stand_in():
    installed()
    write(posted("Raises"), posted("HasNothingToSay"), posted("Hangs"))
    flags = ["--llm.enabled", "--llm.provider=classifier", "--llm.model=rogue", "--llm.timeout=1s"]
    done = await classify("alerts.json", *flags)
    raises, undecided, hangs = done.out.split("\n\n")
    assert "\nwhy rules    rejected: KeyError\n" in raises
    assert "\nwhy rules    undecided: Undecided\n" in undecided
    assert "\nwhy rules    timeout: no answer in time\n" in hangs
    assert "warning: classifier/rogue failed when it was asked last: timeout: no answer in time\n" in done.err
    assert done.code == 0, "one that has nothing to say works"
    write(posted("Raises"), posted("Good"))
    done = await classify("alerts.json", *flags)
    raises, good = done.out.split("\n\n")
    assert "from nobody" in raises
    assert good.splitlines()[1:5] == [
        "severity     info",
        "category     network",
        "confidence   high",
        "source       the model rogue",
    ]
    assert done.code == 0
    write(posted("Raises"))
    done = await classify("alerts.json", *flags, "--llm.enable-fallback=false")
    assert "no verdict: the model has none (rejected: KeyError), and llm.enable_fallback is false" in done.out
    assert done.err.endswith("no model gave a verdict: rejected: KeyError\n")
    assert done.code == 1


async def test_a_model_that_is_unsure_works():
    write(posted("Unsure"))
    async with FakeProvider(judged) as provider:
        flags = ["--llm.enabled", f"--llm.base-url={provider.url}", "--llm.min-confidence=medium"]
        done = await classify("alerts.json", *flags)
    assert "is not sure enough (llm.min_confidence)" in done.out
    assert (done.err, done.code) == ("", 0)


async def test_without_its_key_the_model_is_not_asked_and_it_says_so():
    write(posted("Disk"))
    done = await classify("alerts.json", "--llm.enabled", "-o", "json", key="")
    (one,) = done.json
    assert (one["source"], one["reason"]) == ("rules", "unusable")
    assert one["error"] == "no API key; set LLM_API_KEY, llm.api_key or llm.api_key_file"
    assert done.err.endswith(f"no model gave a verdict: unusable: {one['error']}\n")
    assert done.code == 1


def test_the_rules_alone_need_no_litellm_and_no_worker():
    write(posted("DiskFull"), posted("Odd") | {"annotations": None})
    script = (
        "import sys\nfrom proxy import cli\n"
        "assert cli.main(['classify', 'alerts.json', '--rules', '--llm.enabled', '-o', 'json']) == 0\n"
        "found = {'litellm', 'openai', 'tqdm', 'proxy.classification.worker.client'} & set(sys.modules)\n"
        "assert not found, found\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env={"PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    disk, odd = json.loads(done.stdout)
    assert (disk["rule"], disk["reason"], disk["error"]) == ("filesystem-full", "no_model", "")
    assert odd["source"] == "rules", "the rules read what a model is not asked about"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--models=rules", "--rules"], "want --rules or --models, not both; --models takes rules as one of them"),
        (["--repeat=2"], "--repeat is for --models"),
        (["--models=rules", "--repeat=0"], "0 is out of range, want a whole number from 1 to 20"),
        (["--models=rules", "--repeat=21"], "21 is out of range, want a whole number from 1 to 20"),
        (["--models=openia/gpt-4o"], "unknown provider 'openia'; did you mean openai?"),
        (["--models=clasifier/rogue"], "unknown provider 'clasifier'; did you mean classifier?"),
        (["--models=rules,gpt-4o"], "'gpt-4o' names no provider; want for example anthropic/claude-haiku-4-5"),
        (["--models=rules,"], "is empty, want for example"),
        (["--models=openai/a, openai/a"], "openai/a is named twice"),
        (["--models=rules,rules"], "rules is named twice"),
    ],
)
def test_wrong_usage_ends_with_exit_2_and_says_what_is_wanted(arguments, said, capsys):
    write()
    with pytest.raises(SystemExit) as ended:
        cli.main(["classify", "alerts.json", *arguments])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_of_many_classes_so_many_are_asked_about_at_once_and_none_in_two_parts(monkeypatch):
    assert one_off._AT_ONCE < WAITING_LIMIT, "or the queue would turn some of them away"
    monkeypatch.setattr(one_off, "_AT_ONCE", 2)
    alerts = [an_alert(name, pod=str(n)) for n, name in enumerate(("A", "B", "C", "A", "D", "C", "E"))]
    assert one_off._parts(alerts, Settings()) == [[0, 3, 1], [2, 5, 4], [6]]
    assert one_off._parts([], Settings()) == []


def test_a_provider_that_litellm_knows_is_no_slip_of_another():
    assert may_be_known("openai_like")
    assert not may_be_known("openia")
