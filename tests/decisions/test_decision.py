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


def test_labels_without_a_text_name_no_author_of_one():
    early = replace(verdict(), summary="", recommendations=())
    assert set(NAMES.label(ALERT.identity, early).annotations) == {"ai_confidence", "ai_source"}


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


RENAMED = Names("sev", "cat", former=("ai_severity", "old_sev", "ai_category"))


@pytest.mark.parametrize(
    ("labels", "ours"),
    [
        pytest.param({"sev": "info", "cat": "other"}, {"sev", "cat"}, id="the names of today"),
        pytest.param({"ai_severity": "info", "ai_category": "other"}, {"ai_severity", "ai_category"}, id="former ones"),
        pytest.param({"old_sev": "info", "ai_category": "other"}, {"old_sev", "ai_category"}, id="older ones"),
        pytest.param({"old_sev": "info", "cat": "other"}, {"old_sev", "cat"}, id="one renamed after the other"),
        pytest.param(
            {"sev": "info", "cat": "other", "ai_severity": "info"}, {"sev", "cat"}, id="today's before a sender's own"
        ),
        pytest.param({"older": "info", "cat": "other"}, set(), id="a name that nobody said was ours"),
        pytest.param({"old_sev": "high", "cat": "other"}, set(), id="a value that is none of ours"),
    ],
)
def test_labels_that_were_renamed_are_known_again_and_kept(labels, ours):
    original, found, _ = RENAMED.recognise({"alertname": "A", **labels}, {})
    assert found == {name: labels[name] for name in ours}
    assert original == {"alertname": "A", **{n: v for n, v in labels.items() if n not in ours}}


def test_new_alerts_get_the_names_of_today():
    assert set(RENAMED.label(ALERT.identity, verdict()).labels) == {"sev", "cat"}


def test_a_runbook_is_an_annotation_of_its_own_beside_anybodys_text():
    names = Names(annotation_prefix="x_")
    for decide in (names.label, names.annotate):
        decision = decide(ALERT.identity, replace(verdict(), runbook="https://wiki/slow"))
        assert decision.annotations["x_runbook"] == "https://wiki/slow"
        assert decision.annotations["x_model"] == "fake-1"
        assert "https://wiki/slow" not in decision.labels.values()
        assert names.recognise(ALERT.labels, decision.annotations)[2] == decision.annotations
    assert "x_runbook" not in names.label(ALERT.identity, verdict()).annotations
