from dataclasses import replace

import pytest
from fakes import an_alert, verdict

from proxy.classification.classification import Severity, Source
from proxy.decisions.decision import Decision, Names

NAMES = Names()
ALERT = an_alert()


def test_labels_are_the_two_closed_sets_and_the_rest_is_text():
    decision = NAMES.label(ALERT.identity, verdict(Severity.CRITICAL))
    assert decision.labels == {"ai_severity": "critical", "ai_category": "performance"}
    assert decision.annotations == {
        "ai_summary": "The model says so.",
        "ai_recommendations": "1. Look at the dashboard.",
        "ai_confidence": "high",
        "ai_source": "llm",
        "ai_model": "fake-1",
    }


def test_the_rules_name_no_model():
    found = NAMES.label(ALERT.identity, replace(verdict(source=Source.RULES), model="", summary=""))
    assert set(found.annotations) == {"ai_recommendations", "ai_confidence", "ai_source"}


def test_recommendations_alone_say_the_verdict_in_annotations():
    decision = NAMES.annotate(ALERT.identity, verdict(Severity.CRITICAL))
    assert decision.labels == {}
    assert decision.annotations["ai_severity"] == "critical"
    assert decision.annotations["ai_category"] == "performance"


def test_later_text_keeps_the_labels_and_where_they_came_from():
    decided = NAMES.label(ALERT.identity, verdict(Severity.WARNING, source=Source.RULES))
    better = NAMES.improve(decided, verdict(Severity.CRITICAL, summary="Better."))
    assert better.labels == decided.labels
    assert (better.annotations["ai_summary"], better.annotations["ai_source"]) == ("Better.", "rules")


def test_later_text_of_an_alert_without_labels_replaces_the_verdict():
    decided = NAMES.annotate(ALERT.identity, verdict(Severity.WARNING, source=Source.RULES))
    better = NAMES.improve(decided, verdict(Severity.CRITICAL))
    assert (better.annotations["ai_severity"], better.annotations["ai_source"]) == ("critical", "llm")


def test_a_bare_alert_stays_bare():
    bare = Decision(ALERT.identity)
    assert NAMES.improve(bare, verdict()) is bare


@pytest.mark.parametrize("names", [NAMES, Names("sev", "cat", "x_")])
@pytest.mark.parametrize("severity", list(Severity))
def test_what_was_added_is_known_again(names, severity):
    decision = names.label(ALERT.identity, verdict(severity))
    original, labels, text = names.recognise(
        {**ALERT.labels, **decision.labels}, {"summary": "theirs", **decision.annotations}
    )
    assert (original, labels, text) == (ALERT.labels, decision.labels, decision.annotations)


@pytest.mark.parametrize(
    "labels",
    [
        pytest.param({"ai_severity": "critical"}, id="one alone"),
        pytest.param({"ai_severity": "high", "ai_category": "storage"}, id="a severity that is none of ours"),
        pytest.param({"ai_severity": "critical", "ai_category": "disk"}, id="a category that is none of ours"),
    ],
)
def test_labels_of_that_name_that_cannot_be_ours_are_the_senders(labels):
    original, ours, _ = NAMES.recognise({"alertname": "A", **labels}, {})
    assert (original, ours) == ({"alertname": "A", **labels}, {})
