"""The rules decide from labels alone, alike on every replica, and never against the author."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.alert import Alert
from proxy.classification.classification import Category, Classification, Confidence, Severity, Source
from proxy.classification.rules import NAME_LENGTH, Explanation, Reason, Rules, words
from proxy.classification.rules.checking import problems

SHIPPED = Rules.shipped()
TABLE = resources.files("proxy.classification").joinpath("rules.yaml").read_text("utf-8")
AGAIN = Rules.parse(TABLE, "again")
"""The shipped table as another replica reads it."""


def alert(name: str = "", **labels: str) -> Alert:
    return Alert({k: v for k, v in {"alertname": name, **labels}.items() if v})


def verdict(name: str = "", **labels: str) -> Classification:
    return SHIPPED.classify(alert(name, **labels))


def test_the_shipped_table_is_sound():
    assert problems(SHIPPED) == []


def test_every_shipped_rule_is_tried():
    assert not_tried(SHIPPED) == []


def test_every_shipped_rule_decides_on_each_of_its_examples():
    for rule in SHIPPED.rules:
        assert rule.examples, rule.name
        for name in rule.examples:
            found = SHIPPED.explain(alert(name))
            assert rule.name in (found.category.by, found.severity.by), name


LAST = "tests:\n"


@pytest.mark.parametrize(
    "row",
    [
        pytest.param("  - {name: new, pattern: zzz, category: other}\n", id="a rule without an example"),
        pytest.param(
            "  - {name: new, pattern: zzz, category: other, examples: [DiskFull]}\n", id="one it does not match"
        ),
        pytest.param("  - {name: new, pattern: disk full, category: other, examples: [DiskFull]}\n", id="one shadowed"),
        pytest.param("  - {name: new, pattern: zzz, severity: info, examples: [WatchdogZzz]}\n", id="fine"),
    ],
)
def test_a_rule_that_no_example_reaches_does_not_pass_as_tested(row):
    rules = Rules.parse(TABLE.replace("\n" + LAST, "\n" + row + LAST), "t")
    assert not_tried(rules) == ([] if "Watchdog" in row else ["new"])


def not_tried(rules: Rules) -> list[str]:
    """Return the rules that decide on none of their examples."""
    why = {rule.name: [rules.explain(alert(name)) for name in rule.examples] for rule in rules.rules}
    return [name for name, found in why.items() if not any(name in (w.category.by, w.severity.by) for w in found)]


def test_every_shipped_rule_with_a_category_helps_people():
    assert [rule.name for rule in SHIPPED.rules if rule.category and not rule.text.recommendations] == []
    assert [rule.name for rule in SHIPPED.rules if rule.category and not rule.text.summary] == []


def test_an_alert_that_no_rule_knows_gets_a_text_and_first_steps_all_the_same():
    assert set(SHIPPED.tables[0].defaults) == set(Category)
    found = verdict("Kaputt")
    assert found.summary == "No rule knows this alertname; the alert's own text says what it is about."
    assert found.recommendations


@pytest.mark.parametrize(
    ("word", "severity"),
    [
        *[
            (word, Severity.CRITICAL)
            for word in ("critical", "CRIT", "page", "P1", "Sev-0", "SEV 1", "sev_1", "fatal ")
        ],
        *[
            (word, Severity.WARNING)
            for word in ("error", "High", "major", "warning", "WARN", "ticket", "p3", "average")
        ],
        *[(word, Severity.INFO) for word in ("info", "Informational", "notice", "low", "P5", "debug", "OK")],
        *[(word, Severity.NOISE) for word in ("none", "noise", "Ignore")],
        *[
            (word, Severity.CRITICAL)
            for word in (
                "S1", "RED", "paging", "page-me", "catastrophic", "emerg", "Severity 1", "severity_1", "Highest",
                "  critical\t", "cri\u200btical", "\ufeffCRIT\u00a0", "critical (page)", "P1 - Critical", "1 - page",
                "[critical]", "page / warning", "P2 (critical)",
            )
        ],
        *[(word, Severity.WARNING) for word in ("S2", "amber", "Yellow", "moderate", "2 - High", "Sev2 (High)")],
        *[(word, Severity.INFO) for word in ("S5", "green", "Lowest", "5 - low")],
        *[
            (word, None)
            for word in (
                "gold", "1", "0", "5", "criticality", "not critical", "-", "()", "1 - 2", "not-critical",
                "pre-critical", "critical-ish", "critical (or not)", "pre - critical", "uncritical", "critical, maybe",
                "critical" + " " * 64, "critical" * 100_000,
            )
        ],
    ],
)  # fmt: skip
def test_words_of_authors(word, severity):
    assert SHIPPED.author_severity(alert("X", severity=word)) == severity


@pytest.mark.parametrize(
    ("labels", "severity"),
    [
        pytest.param({"priority": "P1"}, Severity.CRITICAL, id="priority"),
        pytest.param({"level": "warn"}, Severity.WARNING, id="level"),
        pytest.param({"sev": "sev4"}, Severity.INFO, id="sev"),
        pytest.param({"urgency": "urgent"}, Severity.CRITICAL, id="urgency"),
        pytest.param({"Severity": "critical"}, Severity.CRITICAL, id="label names in any case"),
        pytest.param({"SEVERITY": "info", "severity": "page"}, Severity.CRITICAL, id="the usual spelling wins"),
        pytest.param({"priority": "p1", "severity": "info"}, Severity.INFO, id="severity before priority"),
        pytest.param({"severity": "gold", "priority": "p1"}, Severity.CRITICAL, id="an unknown word is passed over"),
        pytest.param({"team": "critical"}, None, id="other labels say nothing"),
        pytest.param({}, None, id="no labels"),
    ],
)
def test_where_authors_say_it(labels, severity):
    assert SHIPPED.author_severity(Alert(labels)) == severity


@pytest.mark.parametrize(
    ("labels", "severity", "category", "confidence", "rule", "by"),
    [
        pytest.param(
            {"alertname": "LogDiskFull", "severity": "page"},
            Severity.CRITICAL, Category.STORAGE, Confidence.HIGH, "filesystem-full", ("author", "filesystem-full"),
            id="author and rule",
        ),
        pytest.param(
            {"alertname": "ShopOutage"},
            Severity.CRITICAL, Category.AVAILABILITY, Confidence.MEDIUM, "everything-down",
            ("everything-down", "everything-down"),
            id="rule alone",
        ),
        pytest.param(
            {"alertname": "ApiSlow", "severity": "gold"},
            Severity.WARNING, Category.PERFORMANCE, Confidence.MEDIUM, "latency-high", ("default", "latency-high"),
            id="a rule without a severity",
        ),
        pytest.param(
            {"alertname": "Kaputt", "severity": "info"},
            Severity.INFO, Category.OTHER, Confidence.MEDIUM, "default", ("author", "default"),
            id="author alone",
        ),
        pytest.param(
            {"alertname": "Kaputt"},
            Severity.WARNING, Category.OTHER, Confidence.LOW, "default", ("default", "default"),
            id="neither",
        ),
        pytest.param(
            {"alertname": "DiskFullWarning"},
            Severity.WARNING, Category.STORAGE, Confidence.MEDIUM, "filesystem-full",
            ("named-warning", "filesystem-full"),
            id="the name's severity before the rule's",
        ),
        pytest.param(
            {"alertname": "DoorCritical", "severity": "info"},
            Severity.INFO, Category.OTHER, Confidence.MEDIUM, "default", ("author", "default"),
            id="a severity that does not count is no reason",
        ),
    ],
)  # fmt: skip
def test_verdicts_and_who_gave_them(labels, severity, category, confidence, rule, by):
    found, why = SHIPPED.classify(Alert(labels)), SHIPPED.explain(Alert(labels))
    assert (found.severity, found.category, found.confidence, found.rule) == (severity, category, confidence, rule)
    assert (why.severity.by, why.category.by) == by
    assert (found.source, found.model) == (Source.RULES, "")


def test_an_explanation_says_where_it_stands():
    lines = TABLE.splitlines()
    why = SHIPPED.explain(alert("LogDiskFull", Severity="page"))
    assert (why.severity.by, why.severity.at) == ("author", "Severity=page")
    line = lines.index("  - name: filesystem-full") + 1
    assert why.category == Reason("filesystem-full", f"rules.yaml:{line}")
    assert SHIPPED.explain(alert("Kaputt")) == Explanation(Reason("default"), Reason("default"))


def test_an_alert_that_always_fires_is_noise_unless_its_author_says_otherwise():
    assert verdict("Watchdog").severity is Severity.NOISE
    assert verdict("Watchdog", severity="none").severity is Severity.NOISE
    assert verdict("Watchdog", severity="critical").severity is Severity.CRITICAL


def test_the_rules_recommendations_are_given():
    [rule] = [rule for rule in SHIPPED.rules if rule.name == "inodes-exhausted"]
    assert verdict("NodeInodesLow").recommendations == rule.text.recommendations
    assert verdict("NodeInodesLow").summary == rule.text.summary


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("KubePersistentVolumeFillingUp", "kube persistent volume filling up"),
        ("HAProxyHTTP5xxErrors", "ha proxy http 5xx errors"),
        ("High4XXRate", "high 4xx rate"),
        ("PVCsFull", "pvcs full"),
        ("etcdGRPCSlow", "etcd grpc slow"),
        ("LatencyP99High", "latency p99 high"),
        ("Node_disk-full: 95%", "node disk full 95"),
        ("Host out of memory", "host out of memory"),
        ("etcd3Down", "etcd3 down"),
        ("CPU使用率", "cpu"),
        ("", ""),
    ],
)
def test_alertnames_are_read_as_words(name, expected):
    assert words(name) == expected


def test_only_the_beginning_of_an_endless_name_is_searched():
    assert verdict("A" * NAME_LENGTH + " disk full").rule == "default"


LABELS = st.dictionaries(
    st.sampled_from(["alertname", "severity", "Severity", "priority", "level", "job"]) | st.text(max_size=8),
    st.sampled_from(["critical", "P1", "warning", "info", "none", "Watchdog", "DiskFull", "NodeDown"])
    | st.text(max_size=40),
    max_size=6,
)


@given(LABELS)
def test_every_alert_gets_a_verdict(labels):
    found = SHIPPED.classify(Alert(labels))
    assert found.source is Source.RULES
    assert found.rule
    assert found.summary


@given(LABELS, st.dictionaries(st.text(max_size=8), st.text(max_size=20), max_size=3), st.booleans())
def test_the_verdict_depends_on_the_labels_alone(labels, annotations, later):
    moment = datetime(2031 if later else 2030, 1, 1, tzinfo=UTC)
    shuffled = dict(sorted(labels.items(), reverse=True))
    assert SHIPPED.classify(Alert(labels)) == AGAIN.classify(Alert(shuffled, annotations, moment, moment))


@given(LABELS, st.sampled_from(list(Severity)))
def test_the_author_is_neither_raised_nor_lowered(labels, severity):
    assert SHIPPED.classify(Alert({**labels, "severity": severity.value})).severity is severity


SMALL = """\
version: 1
author_severity:
  labels: [Tier]
  words:
    critical: [gold]
rules:
  - name: db-a
    match: ['job=~"db.*"', 'env!="test"']
    category: storage
    recommendations: [Call the owner.]
  - name: db-b
    match: ['job=~"db.*"']
    pattern: '\\bSLOW\\b'
    category: performance
    severity: info
"""


@pytest.mark.parametrize(
    ("labels", "rule", "severity"),
    [
        pytest.param({"job": "db1", "alertname": "DbSlow"}, "db-a", Severity.WARNING, id="the first that matches"),
        pytest.param({"job": "db1", "env": "test", "alertname": "DbSlow"}, "db-b", Severity.INFO, id="all must match"),
        pytest.param({"job": "db1", "env": "test", "alertname": "DbSlower"}, "default", Severity.WARNING, id="pattern"),
        pytest.param({"job": "web", "alertname": "WebSlow"}, "default", Severity.WARNING, id="matchers and pattern"),
        pytest.param({"job": "db1", "tier": "Gold"}, "db-a", Severity.CRITICAL, id="the table's own words"),
        pytest.param({"severity": "critical"}, "default", Severity.WARNING, id="not the shipped words"),
    ],
)
def test_a_table_decides(labels, rule, severity):
    found = Rules.parse(SMALL, "t").classify(Alert(labels))
    assert (found.rule, found.severity) == (rule, severity)


def test_equal_tables_have_equal_hashes():
    again = Rules.parse("# a comment\n" + SMALL.replace("  - name", "\n  - name"), "elsewhere.yaml")
    assert again.hash == Rules.parse(SMALL, "t").hash
    assert len(again.hash) == 12
    assert int(again.hash, 16) >= 0


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("gold", "silver"),
        ("Tier", "rank"),
        ("db-a", "db-c"),
        ('env!="test"', 'env="test"'),
        ("SLOW", "LATE"),
        ("severity: info", "severity: noise"),
        ("category: storage", "category: other"),
        ("Call the owner.", "Call her."),
    ],
)
def test_whatever_changes_a_verdict_changes_the_hash(old, new):
    assert old in SMALL
    assert Rules.parse(SMALL.replace(old, new), "t").hash != Rules.parse(SMALL, "t").hash


def test_the_order_changes_the_hash():
    head, a, b = SMALL.split("  - name")
    assert Rules.parse("  - name".join([head, b, a]), "t").hash != Rules.parse(SMALL, "t").hash


def test_a_change_of_the_code_changes_the_hash(monkeypatch):
    before = Rules.parse(SMALL, "t").hash
    monkeypatch.setattr("proxy.classification.rules.asking.CODE_VERSION", 999)
    assert Rules.parse(SMALL, "t").hash != before


def test_a_table_may_be_almost_empty():
    rules = Rules.parse("version: 1\nrules:\n", "t")
    assert rules.classify(alert("NodeDown", severity="critical")).severity is Severity.WARNING


def test_the_reference_names_every_word_of_an_author():
    page = (Path(__file__).parents[2] / "docs" / "reference" / "labels-and-annotations.md").read_text()
    rows = re.findall(r"^\| ((?:`\w+` )+)\| `(\w+)` \|$", page, re.MULTILINE)
    written = {word: severity for words, severity in rows for word in re.findall(r"\w+", words)}
    assert written == {word: severity.value for word, severity in SHIPPED._words.items()}
