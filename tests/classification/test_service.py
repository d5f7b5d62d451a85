import asyncio
from dataclasses import replace

import pytest
from fakes import FakeModel, Observer, an_alert, verdict

from proxy.alert import Alert
from proxy.classification.allowance import WaitingAllowance
from proxy.classification.cache import ClassCache
from proxy.classification.classes import class_key
from proxy.classification.classification import Category, Classification, Confidence, Severity, Source
from proxy.classification.rules import Rules
from proxy.classification.service import ClassificationService
from proxy.errors import ClassifierOpen, ClassifierRejected, ClassifierTimeout
from proxy.policy import SeverityFloor


@pytest.fixture
def observer():
    return Observer()


@pytest.fixture
async def service_with(observer):
    opened = []

    def make(
        model: FakeModel | None, *, capacity: float = 6, cache: bool = True, rules: Rules | None = None, **options
    ) -> ClassificationService:
        service = ClassificationService(
            rules=rules or Rules.shipped(),
            model=model,
            salt="fake/1",
            cache=ClassCache(3600) if cache else None,
            allowance=WaitingAllowance(capacity),
            observer=observer,
            **options,
        )
        opened.append(service)
        return service

    yield make
    for service in opened:
        await service.close()


async def test_without_a_model_the_rules_decide(service_with):
    [found] = await service_with(None).classify([an_alert(severity="page")], 1)
    assert (found.now.source, found.now.severity, found.later) == (Source.RULES, Severity.CRITICAL, None)


async def test_the_model_decides_when_it_answers_in_time(service_with, observer):
    [found] = await service_with(FakeModel([verdict(Severity.CRITICAL)])).classify([an_alert()], 1)
    assert (found.now.source, found.now.severity) == (Source.LLM, Severity.CRITICAL)
    assert observer.outcomes == ["ok"]


async def test_a_second_alert_of_the_class_comes_from_the_cache(service_with):
    model = FakeModel([verdict(Severity.INFO), verdict(Severity.CRITICAL)])
    service = service_with(model)
    await service.classify([an_alert(instance="a")], 1)
    [found] = await service.classify([an_alert(instance="b")], 1)
    assert (found.now.source, found.now.severity, len(model.asked)) == (Source.CACHE, Severity.INFO, 1)


OVERRIDING = """\
version: 1
overrides:
  HighLatency: {severity: noise, force: true, category: network, runbook: "https://wiki/slow"}
"""


@pytest.mark.parametrize("sure", [Confidence.HIGH, Confidence.LOW])
async def test_an_override_of_the_operator_holds_for_a_models_verdict_in_time_and_late(service_with, sure):
    model = FakeModel([replace(verdict(Severity.CRITICAL), confidence=sure)])
    service = service_with(model, rules=Rules.parse(OVERRIDING, "t"), min_confidence=Confidence.MEDIUM)
    [found] = await service.classify([an_alert()], 1)
    [cached] = await service.classify([an_alert(instance="b")], 0)
    for one in (found.now, cached.now):
        assert (one.severity, one.category, one.runbook) == (Severity.NOISE, Category.NETWORK, "https://wiki/slow")
        assert one.summary == verdict().summary
    late = service_with(FakeModel([verdict(Severity.CRITICAL)]), rules=Rules.parse(OVERRIDING, "t"))
    [waited] = await late.classify([an_alert()], 0)
    assert (waited.now.source, waited.now.severity) == (Source.RULES, Severity.NOISE)
    assert ((await waited.later).severity, (await waited.later).runbook) == (Severity.NOISE, "https://wiki/slow")


async def test_without_a_cache_the_model_is_asked_each_time(service_with):
    model = FakeModel()
    service = service_with(model, cache=False)
    for _ in range(2):
        [found] = await service.classify([an_alert()], 1)
        assert found.now.source is Source.LLM
    assert len(model.asked) == 2


async def test_alerts_of_one_class_share_a_call(service_with):
    model = FakeModel()
    found = await service_with(model).classify([an_alert(pod=f"p-{n}") for n in range(64)], 1)
    assert [alert.labels["pod"] for alert in model.asked] == ["p-0"]
    assert {f.now.source for f in found} == {Source.LLM}


async def test_askers_at_the_same_time_share_a_call(service_with):
    model = FakeModel()
    service = service_with(model)
    await asyncio.gather(*(service.classify([an_alert()], 1) for _ in range(5)))
    assert len(model.asked) == 1


async def test_a_model_that_hangs_costs_the_wait_and_then_the_rules_decide(service_with, observer):
    model = FakeModel([None])
    [found] = await service_with(model).classify([an_alert(severity="info")], 0.05)
    assert (found.now.source, found.now.severity) == (Source.RULES, Severity.INFO)
    assert observer.waits[0] >= 0.05
    model.release.set()
    assert (await found.later).source is Source.LLM


async def test_a_call_goes_on_when_nobody_waits_any_more_and_serves_the_next(service_with):
    model = FakeModel([None])
    service = service_with(model)
    [first] = await service.classify([an_alert()], 0.01)
    model.release.set()
    await first.later
    [second] = await service.classify([an_alert()], 1)
    assert (second.now.source, len(model.asked)) == (Source.CACHE, 1)


async def test_a_class_is_waited_for_once(service_with, observer):
    model = FakeModel([None])
    service = service_with(model)
    await service.classify([an_alert()], 0.02)
    await service.classify([an_alert()], 5)
    assert len(observer.waits) == 1


async def test_an_empty_allowance_means_no_wait(service_with, observer):
    service = service_with(FakeModel([None]), capacity=0)
    [found] = await asyncio.wait_for(service.classify([an_alert()], 5), 1)
    assert found.now.source is Source.RULES


async def test_asked_not_to_wait_it_says_what_is_known_and_asks_behind(service_with):
    model = FakeModel()
    [found] = await service_with(model).classify([an_alert()], 0)
    assert found.now.source is Source.RULES
    assert (await found.later).source is Source.LLM


@pytest.mark.parametrize("error", [ClassifierTimeout("x"), ClassifierRejected("x")])
async def test_an_error_means_the_rules(service_with, observer, error):
    [found] = await service_with(FakeModel([error])).classify([an_alert()], 1)
    assert found.now.source is Source.RULES
    assert observer.outcomes == [error.reason]


async def test_a_bug_of_the_classifier_means_the_rules(service_with, observer):
    [found] = await service_with(FakeModel([ZeroDivisionError("key sk-123")])).classify([an_alert()], 1)
    assert found.now.source is Source.RULES
    assert observer.outcomes == ["bug"]


async def test_a_row_of_failures_is_logged_once_and_so_is_its_end(service_with, capsys):
    errors = [ClassifierTimeout("Timeout"), ClassifierTimeout("Timeout"), ZeroDivisionError("sk-1")]
    service = service_with(FakeModel([*errors, verdict(), verdict(), ClassifierRejected("Auth 401")]), cache=False)
    for _ in range(6):
        await service.classify([an_alert()], 1)
    said = capsys.readouterr().out
    assert [line.split("error=")[1].split()[0].strip("'") for line in said.splitlines() if "fails" in line] == [
        "Timeout",
        "ZeroDivisionError",
        "Auth",
    ]
    assert said.count("answers again") == 1
    assert "sk-1" not in said
    assert service.last_outcome == "rejected: Auth 401"


async def test_a_model_that_fails_every_other_time_is_not_logged_each_time(service_with, capsys):
    service = service_with(FakeModel([ClassifierTimeout("Timeout"), verdict()] * 20), cache=False)
    for _ in range(40):
        await service.classify([an_alert()], 1)
    said = capsys.readouterr().out
    assert (said.count("the model fails"), said.count("answers again")) == (1, 1)


async def test_the_last_outcome_is_that_a_model_is_left_alone(service_with, capsys):
    service = service_with(FakeModel([ClassifierTimeout("Timeout"), ClassifierOpen("left alone")]), cache=False)
    for _ in range(2):
        await service.classify([an_alert()], 1)
    assert service.last_outcome == "breaker_open: left alone"
    assert capsys.readouterr().out.count("the model fails") == 1


async def test_without_fallback_nobody_answers_for_the_model(service_with):
    service = service_with(FakeModel([ClassifierTimeout("x")]), fallback=False)
    [found] = await service.classify([an_alert()], 1)
    assert found.now is None
    assert service.by_rules([an_alert()])[0].now is None


@pytest.mark.parametrize(
    ("floor", "author", "model", "result"),
    [
        ("critical", "critical", Severity.INFO, Severity.CRITICAL),
        ("critical", "page", Severity.NOISE, Severity.CRITICAL),
        ("critical", "warning", Severity.INFO, Severity.INFO),
        ("author", "warning", Severity.INFO, Severity.WARNING),
        ("author", "warning", Severity.CRITICAL, Severity.CRITICAL),
        ("author", "", Severity.NOISE, Severity.NOISE),
        ("off", "critical", Severity.NOISE, Severity.NOISE),
    ],
)
async def test_the_floor_bounds_what_a_model_lowers(service_with, floor, author, model, result):
    service = service_with(FakeModel([verdict(model)]), floor=SeverityFloor(floor))
    for source in (Source.LLM, Source.CACHE):
        [found] = await service.classify([an_alert(severity=author)], 1)
        assert (found.now.severity, found.now.source) == (result, source)


@pytest.mark.parametrize(
    ("other", "same"),
    [
        pytest.param({"instance": "b"}, True, id="another instance"),
        pytest.param({"pod": "web-1", "node": "n2"}, True, id="another pod and node"),
        pytest.param({"severity": "warning"}, False, id="another severity of the author"),
        pytest.param({"namespace": "shop"}, False, id="another namespace"),
    ],
)
def test_the_class_is_the_alert_without_what_names_one_object(other, same):
    base = {"alertname": "A", "instance": "a", "severity": "critical"}
    assert (class_key(Alert(base), "m") == class_key(Alert(base | other), "m")) is same


def test_annotations_and_times_are_no_part_of_the_class_but_the_model_is():
    alert = an_alert()
    assert class_key(alert, "m") == class_key(replace(alert, annotations={"value": "1"}, starts_at=None), "m")
    assert class_key(alert, "m") != class_key(alert, "n")


def test_a_verdict_is_bounded_and_on_one_line():
    found = Classification(
        Severity.INFO,
        Category.OTHER,
        verdict().confidence,
        Source.LLM,
        "a\nb\x00c\u2028" + "x" * 300,
        ("", "1" * 200, "2", "3", "4"),
    )
    assert len(found.summary) == 160
    assert found.summary.startswith("a b c x")
    assert [len(r) for r in found.recommendations] == [120, 1, 1]
