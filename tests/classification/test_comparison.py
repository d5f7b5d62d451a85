"""The figures of a comparison, by hand and by property."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.classification.classification import Category, Classification, Confidence, Severity, Source
from proxy.classification.comparison import (
    Agreement,
    Call,
    Opinion,
    Spent,
    agreement,
    author_agreement,
    failures,
    latency,
    opinion,
    steadiness,
    unanimous,
)
from proxy.classification.usage import Usage

CRITICAL, WARNING, INFO = Severity.CRITICAL, Severity.WARNING, Severity.INFO
STORAGE, ERRORS = Category.STORAGE, Category.ERRORS
HIGH, LOW = Confidence.HIGH, Confidence.LOW


def said(severity=CRITICAL, category=STORAGE, confidence=HIGH) -> Classification:
    return Classification(severity, category, confidence, Source.LLM)


def held(severity=CRITICAL, category=STORAGE, times=1, of=1) -> Opinion:
    return Opinion(severity, category, HIGH, times, of)


def test_what_comes_most_often_is_the_opinion_with_the_confidence_that_came_with_it():
    given_verdicts = [said(INFO), said(confidence=LOW), said(INFO, ERRORS, LOW), said(confidence=LOW), said()]
    assert opinion(given_verdicts) == Opinion(CRITICAL, STORAGE, LOW, 3, 5)


def test_of_two_that_come_equally_often_the_first_counts():
    assert opinion([said(INFO), said()]) == Opinion(INFO, STORAGE, HIGH, 1, 2)


def test_without_a_verdict_there_is_no_opinion():
    assert opinion([]) is None


def test_agreement_is_a_share_of_the_classes_on_which_both_say_something():
    pairs = [
        (held(), held()),
        (held(), held(WARNING)),
        (held(), held(CRITICAL, ERRORS)),
        (held(), held(INFO, ERRORS)),
        (held(), None),
        (None, held()),
        (None, None),
    ]
    assert agreement(pairs) == Agreement(4, 0.5, 0.5, 0.25)
    assert agreement([(held(), None)]) == Agreement(0, None, None, None)


def test_authors_are_agreed_with_on_severity_alone_and_only_where_they_say_one():
    pairs = [(held(), CRITICAL), (held(), INFO), (held(), CRITICAL), (held(), None), (None, CRITICAL)]
    assert author_agreement(pairs) == Agreement(3, 2 / 3, None, None)


@pytest.mark.parametrize(
    ("opinions", "agree"),
    [
        pytest.param([held(), held(times=2, of=3)], True, id="how often does not matter"),
        pytest.param([held(), held(CRITICAL, ERRORS)], False, id="the category counts"),
        pytest.param([held(), held(WARNING)], False, id="the severity counts"),
        pytest.param([held(), held(), None], True, id="one that failed is left out"),
        pytest.param([held(), None], None, id="one alone agrees with nobody"),
    ],
)
def test_models_agree_on_a_class(opinions, agree):
    assert unanimous(opinions) is agree


def test_a_model_agrees_with_itself_where_it_was_asked_again():
    assert steadiness([held(times=2, of=3), held(times=1, of=1), held(times=3, of=3), None]) == 5 / 6
    assert steadiness([held(), None]) is None


def test_latency_is_of_the_calls_that_gave_a_verdict():
    calls = [Call(0, 0, seconds, said()) for seconds in (4.0, 1.0, 2.0)]
    assert latency([*calls, Call(0, 0, 30.0, None, "timeout")]) == (2.0, 4.0)
    assert latency([Call(0, 0, 30.0, None, "timeout")]) is None


def test_failures_are_counted_by_reason_and_error_the_most_frequent_first():
    ways = [("timeout", ""), ("rejected", "401"), ("rejected", "404"), ("rejected", "401")]
    calls = [Call(0, 0, 1.0, None, *way) for way in ways]
    assert list(failures([Call(0, 0, 1.0, said()), *calls]).items()) == [
        (("rejected", "401"), 2), (("timeout", ""), 1), (("rejected", "404"), 1),
    ]  # fmt: skip


def test_a_thousand_verdicts_cost_what_all_calls_did_those_that_failed_included():
    spent = Spent()
    for cost in (0.5, 0.25, 0.25):
        spent = spent.plus(Usage(1, 100, 10, cost))
    assert spent.cost_per_thousand(2) == 500.0
    assert spent.usage == Usage(3, 300, 30, 1.0)
    assert Spent().plus(Usage(0, 0, 0, 0.0)).cost_per_thousand(1) == 0.0


@pytest.mark.parametrize(
    ("costs", "verdicts"),
    [
        pytest.param([None, None], 2, id="none is known"),
        pytest.param([0.5, None], 2, id="one is not known"),
        pytest.param([0.5], 0, id="there is no verdict"),
        pytest.param([], 0, id="nothing was asked"),
    ],
)
def test_without_a_price_or_a_verdict_there_is_no_price_of_a_thousand(costs, verdicts):
    spent = Spent()
    for cost in costs:
        spent = spent.plus(Usage(1, 100, 10, cost))
    assert spent.cost_per_thousand(verdicts) is None


VERDICTS = st.builds(said, st.sampled_from(Severity), st.sampled_from(Category), st.sampled_from(Confidence))
OPINIONS = st.lists(VERDICTS, max_size=6).map(opinion)


@given(st.lists(VERDICTS, min_size=1, max_size=20))
def test_an_opinion_is_one_of_the_verdicts_and_no_other_came_more_often(verdicts):
    found = opinion(verdicts)
    counts = [
        sum((one.severity, one.category) == (other.severity, other.category) for one in verdicts) for other in verdicts
    ]
    assert (found.times, found.of) == (max(counts), len(verdicts))
    assert any(
        (one.severity, one.category, one.confidence) == (found.severity, found.category, found.confidence)
        for one in verdicts
    )


@given(st.lists(st.tuples(OPINIONS, OPINIONS), max_size=12))
def test_agreement_is_mutual_and_never_more_than_its_parts(pairs):
    found = agreement(pairs)
    assert found == agreement([(other, one) for one, other in pairs])
    if found.classes:
        assert found.both <= min(found.severity, found.category)
        assert found.both >= found.severity + found.category - 1 - 1e-9
