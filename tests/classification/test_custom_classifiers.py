"""Classifiers of a user's own in the real worker process: what they say, what they are told, and how they fail."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from own_classifiers import POINTS, ROGUE, SECRET_WORDS, install, on_path
from workers import Watched, config, gone

from proxy import classifiers
from proxy.alert import Alert
from proxy.classification import classification
from proxy.classification.usage import Usage
from proxy.classification.worker import client, custom
from proxy.classification.worker.client import ModelWorker
from proxy.classification.worker.configuration import WorkerState
from proxy.classification.worker.protocol import Model
from proxy.errors import (
    ClassifierError,
    ClassifierRejected,
    ClassifierTimeout,
    ClassifierUnavailable,
    ClassifierUnusable,
)

in_module_loop = pytest.mark.asyncio(loop_scope="module")
KEY = "sk-of-the-classifier"


def own(name: str, base_url: str | None = None) -> Model:
    return Model(classifiers.PROVIDER, name, KEY, base_url)


def about(name: str, **labels: str) -> Alert:
    return Alert(
        {"alertname": name, "severity": "warning", **labels}, {"summary": "sda is full", "runbook_url": "http"}
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("installed")
    install(directory, ROGUE, POINTS)
    return directory


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rogues(installed: Path) -> AsyncIterator[Watched]:
    models = [own("rogue/a-model", "http://127.0.0.1:9"), own("thread")]
    watched = Watched(config(*models, timeout=timedelta(seconds=5), max_retries=1))
    with pytest.MonkeyPatch.context() as patch:
        on_path(patch, installed)
        async with watched.worker:
            await watched.reach(WorkerState.READY)
            yield watched


GOOD = ["Good", "Mapping", "Text", "TenMegabytesInTheSummary", "ManySteps", "PrintsSecrets", "HugeUsage"]
BAD = {
    "Raises": "rejected: KeyError",
    "RaisesBase": "rejected: Base",
    "Exit": "rejected: SystemExit",
    "Interrupt": "rejected: KeyboardInterrupt",
    "Cancelled": "rejected: CancelledError",
    "Stop": "rejected: GeneratorExit",
    "Memory": "rejected: MemoryError",
    "HugeName": f"rejected: {'N' * 200}",
    "Group": "rejected: BaseExceptionGroup",
    "Refuses": "rejected: Rejected",
    "HasNothingToSay": "undecided: Undecided",
    "Nothing": "invalid_answer: NoneType is no verdict",
    "Bytes": "invalid_answer: bytes is no verdict",
    "WrongSeverity": "invalid_answer: unknown severity",
    "Nan": "invalid_answer: no confidence",
    "NoCategory": "invalid_answer: no category",
    "TenMegabytes": "invalid_answer: no JSON object",
    "Nested": "invalid_answer: no severity",
    "Generator": "invalid_answer: generator is no verdict",
    "BadMapping": "rejected: RuntimeError",
}
"""What each comes to. None of them costs the process."""


@in_module_loop
@pytest.mark.parametrize("place", [0, 1], ids=["async", "in a thread"])
@pytest.mark.parametrize("name", GOOD)
async def test_a_verdict_is_taken_in_each_of_its_forms(name: str, place: int, rogues: Watched):
    verdict = await rogues.worker.classifier(place).classify(about(name))
    assert (verdict.severity, verdict.category, verdict.confidence) == ("info", "network", "high")
    assert verdict.model == ("rogue/a-model", "thread")[place]
    assert len(verdict.summary) <= classification.SUMMARY_LENGTH
    if name == "Mapping":
        assert verdict.recommendations == ("One.", "Two.")


@in_module_loop
@pytest.mark.parametrize("place", [0, 1], ids=["async", "in a thread"])
@pytest.mark.parametrize("name", BAD)
async def test_what_is_no_verdict_costs_the_call_and_is_named_without_its_words(name: str, place: int, rogues: Watched):
    pid = rogues.worker.pid
    with pytest.raises(ClassifierError) as raised:
        await rogues.worker.classifier(place).classify(about(name))
    assert f"{raised.value.reason}: {raised.value}" == BAD[name]
    assert SECRET_WORDS not in repr(raised.value)
    assert (rogues.worker.pid, rogues.restarts) == (pid, 0)
    assert (await rogues.worker.classifier(place).classify(about("Good"))).severity == "info"


@in_module_loop
async def test_an_exception_that_no_future_carries_comes_out_of_its_thread(rogues: Watched):
    with pytest.raises(ClassifierRejected, match="RuntimeError"):  # what Python makes of a StopIteration
        await rogues.worker.classifier(1).classify(about("Iterates"))


@in_module_loop
@pytest.mark.parametrize("place", [0, 1], ids=["async", "in a thread"])
@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("AwayOnce", "ok"),
        ("LateOnce", "ok"),
        ("UnavailableOnce", "ok"),
        ("LimitedOnce", "ok"),
        ("LimitedForNonsense", "ok"),
        ("LimitedForLong", "rate_limited"),
        ("TextTwice", "ok"),
    ],
)
async def test_it_is_asked_again_as_any_provider_is(name: str, outcome: str, place: int, rogues: Watched):
    rogues.usage.clear()
    try:
        await rogues.worker.classifier(place).classify(about(name))
        ended = "ok"
    except ClassifierError as exc:
        ended = exc.reason
    assert (ended, rogues.usage) == (outcome, [(place, Usage(2 if outcome == "ok" else 1))])


@in_module_loop
async def test_what_it_counts_is_counted_and_nonsense_is_not(rogues: Watched):
    rogues.usage.clear()
    await rogues.worker.classifier(0).classify(about("Counted"))
    await rogues.worker.classifier(0).classify(about("HugeUsage"))
    assert rogues.usage == [(0, Usage(1, 700, 90, 0.25)), (0, Usage(1))]


@in_module_loop
async def test_it_is_told_what_may_leave_and_no_more(rogues: Watched, installed: Path):
    await rogues.worker.classifier(0).classify(about("Told", password="hunter2", instance="10.0.0.7:9100"))
    told = json.loads((installed / "told.json").read_text())
    masked = {"password": "SECRET_1", "instance": "IP_1:9100"}
    assert told["labels"] == {"alertname": "Told", "severity": "warning", **masked}
    assert told["annotations"] == {"summary": "sda is full"}
    assert [message["role"] for message in told["messages"]] == ["system", "user"]
    assert '"instance": "IP_1:9100"' in told["messages"][1]["content"]
    assert 0 < told["seconds"] <= 5
    assert told["setup"] == ["rogue", "a-model", KEY, "http://127.0.0.1:9"]
    assert KEY not in told["repr"]
    assert "IP_1" not in told["repr"]
    assert told["key"] == []
    assert not told["litellm"], "a classifier of one's own does not need it"


def test_the_interface_has_the_closed_sets_of_the_product():
    assert tuple(classification.Severity) == classifiers.SEVERITIES
    assert tuple(classification.Category) == classifiers.CATEGORIES
    assert tuple(classification.Confidence) == classifiers.CONFIDENCES


# What costs the process


@asynccontextmanager
async def one(name: str, *others: Model) -> AsyncIterator[Watched]:
    """A worker of its own, which does not wait long."""
    watched = Watched(config(own(name), *others, timeout=timedelta(seconds=0.5), max_retries=0))
    async with watched.worker:
        await watched.reach(WorkerState.READY)
        yield watched


@in_module_loop
async def test_who_does_not_come_back_costs_the_process_and_it_is_replaced(installed: Path, monkeypatch):
    on_path(monkeypatch, installed)
    monkeypatch.setattr(client, "_GRACE", 0.5)

    async def replaced(classifier: str, name: str, error: type[ClassifierError]) -> None:
        async with one(classifier) as watched:
            pid = watched.worker.pid
            assert pid is not None
            with pytest.raises(error):
                await watched.worker.classifier(0).classify(about(name))
            async with asyncio.timeout(10):
                while not watched.restarts:
                    await asyncio.sleep(0.02)
            await gone(pid)
            await watched.reach(WorkerState.READY)
            assert (await watched.worker.classifier(0).classify(about("Good"))).severity == "info"
            assert watched.restarts == 1

    async def replaced_with_its_helper() -> None:
        await replaced("rogue", "BlocksWithAHelper", ClassifierTimeout)
        await gone(int((installed / "helper").read_text()))

    await asyncio.gather(
        replaced("rogue", "BlocksTheLoop", ClassifierTimeout),
        replaced("rogue", "IgnoresCancellation", ClassifierTimeout),
        replaced("rogue", "Leaves", ClassifierUnavailable),
        replaced("rogue", "LeavesAnotherBehind", ClassifierUnavailable),
        replaced("thread", "Hangs", ClassifierTimeout),
        replaced_with_its_helper(),
    )


def test_of_a_list_without_an_end_no_more_is_looked_at_than_is_used():
    assert custom._bounded(range(1_000_000)) == list(range(custom._STEPS))


@in_module_loop
async def test_a_thread_may_have_its_time_after_its_call_was_given_up(installed: Path, monkeypatch):
    on_path(monkeypatch, installed)
    async with one("thread") as watched:
        pid = watched.worker.pid
        calls = [asyncio.create_task(watched.worker.classifier(0).classify(about("TakesLonger"))) for _ in range(2)]
        await asyncio.sleep(0.1)
        calls[0].cancel()
        with pytest.raises(ClassifierTimeout, match="no answer in time"):
            await calls[1]
        await asyncio.sleep(custom._GRACE + 0.5)
        assert (watched.worker.pid, watched.restarts) == (pid, 0)
        assert (await watched.worker.classifier(0).classify(about("Good"))).severity == "info"


@in_module_loop
async def test_what_it_has_open_it_may_close(installed: Path, monkeypatch):
    on_path(monkeypatch, installed)
    async with one("rogue"):
        (installed / "closed").unlink(missing_ok=True)
    assert (installed / "closed").exists()


# What cannot be used


@in_module_loop
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("silent", r"the classifier 'silent' \(rogue:WithoutClassify\) has no method classify"),
        ("broken", r"the classifier 'broken' \(rogue:Broken\) cannot be made: OSError"),
        ("trap", r"the classifier 'trap' \(rogue:Trap\) cannot be made: RuntimeError"),
        ("leaver", r"the classifier 'leaver' \(rogue:Leaver\) cannot be made: SystemExit"),
        ("absent", r"the classifier 'absent' \(rogue:NoSuchThing\) cannot be imported: AttributeError"),
        ("unimportable", r".* cannot be imported: ModuleNotFoundError for no_such_module"),
        ("twice", r"several packages bring a classifier 'twice': another:Rogue, rogue:Rogue"),
        (
            "rouge",
            "no classifier 'rouge' is installed, .*; installed: absent, broken, leaver, rogue, silent, thread, .*",
        ),
    ],
)
async def test_one_that_cannot_be_used_says_why_and_leaves_the_others_in_use(
    name: str, why: str, unusable: ModelWorker
):
    with pytest.raises(ClassifierUnusable) as raised:
        await unusable.classifier(UNUSABLE.index(name)).classify(about("Good"))
    assert re.fullmatch(why, str(raised.value))
    assert SECRET_WORDS not in str(raised.value)
    assert (await unusable.classifier(0).classify(about("Good"))).severity == "info"


UNUSABLE = ["rogue", "trap", "silent", "broken", "leaver", "absent", "unimportable", "twice", "rouge"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def unusable(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ModelWorker]:
    another = tmp_path_factory.mktemp("another")
    install(another, ROGUE, {"twice": "another:Rogue"}, "another")
    with pytest.MonkeyPatch.context() as patch:
        on_path(patch, installed, another)
        async with ModelWorker(config(*map(own, UNUSABLE))) as worker:
            yield worker


@in_module_loop
async def test_where_none_is_installed_it_is_said(monkeypatch):
    on_path(monkeypatch)
    async with ModelWorker(config(own("rogue"))) as worker:
        with pytest.raises(ClassifierUnusable, match=r"no classifier 'rogue' .* installed: none"):
            await worker.classifier(0).classify(about("Good"))
        assert worker.state is WorkerState.UNUSABLE
