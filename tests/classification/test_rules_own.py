"""The operator's own table is asked before the shipped one, and its overrides hold in any case."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.alert import Alert
from proxy.classification.classification import Category, Classification, Confidence, Severity, Source
from proxy.classification.rules import Reason, Rules, words
from proxy.classification.rules.reading import read
from proxy.errors import ConfigError
from proxy.matchers import matches_all

OWN = """\
version: 1
author_severity:
  labels: [tier]
  words: {critical: [gold], info: [page]}
categories:
  network: {summary: Call the network team., runbook: https://wiki/net}
rules:
  - name: payments
    match: [team=pay]
    severity: critical
    summary: Payments are affected.
    runbook: https://wiki/pay
  - name: batch-down
    match: ['job=~"batch.*"']
    pattern: '\\bdown\\b'
    severity: info
    category: capacity
    recommendations: [Wait for the night.]
  - name: note
    match: [note=yes]
    runbook: https://wiki/note
overrides:
  Forced: {severity: info, force: true, category: security, summary: Known., runbook: https://wiki/forced}
  Gentle: {severity: critical}
  Retold: {category: other, recommendations: [Ask Bo.]}
"""


@pytest.fixture
def rules(tmp_path) -> Rules:
    file = tmp_path / "my-rules.yaml"
    file.write_text(OWN, encoding="utf-8")
    return Rules.with_own(file)


def ask(rules: Rules, name: str, **labels: str) -> Classification:
    return rules.classify(Alert({"alertname": name, **labels}))


def test_it_is_asked_first(rules):
    found = ask(rules, "ImportDown", job="batch7")
    assert (found.severity, found.category, found.rule) == (Severity.INFO, Category.CAPACITY, "batch-down")
    assert found.recommendations == ("Wait for the night.",)
    assert ask(rules, "ImportDown", job="web").rule == "down"


def test_what_it_leaves_open_the_shipped_table_says(rules):
    found = ask(rules, "DiskInodesLow", team="pay")
    assert (found.severity, found.category, found.rule) == (Severity.CRITICAL, Category.STORAGE, "inodes-exhausted")
    assert (found.summary, found.runbook) == ("Payments are affected.", "https://wiki/pay")
    assert found.recommendations == ask(rules, "DiskInodesLow").recommendations
    why = rules.explain(Alert({"alertname": "DiskInodesLow", "team": "pay"}))
    assert why.severity.by == "payments"
    assert why.severity.at.endswith("/my-rules.yaml:8")
    assert why.category.at.startswith("rules.yaml:")


def test_a_rule_may_give_a_runbook_alone(rules):
    found = ask(rules, "DiskInodesLow", note="yes")
    assert (found.runbook, found.rule, found.severity) == ("https://wiki/note", "inodes-exhausted", Severity.WARNING)


def test_a_category_has_the_texts_of_the_first_table_that_has_any(rules):
    assert ask(rules, "Kaputt", severity="info").summary.startswith("No rule knows")
    rules = Rules(read("version: 1\ncategories: {other: {summary: Ask.}}", "t"), *Rules.shipped().tables)
    assert ask(rules, "Kaputt").summary == "Ask."


def test_it_adds_labels_and_words_of_authors(rules):
    assert ask(rules, "X", tier="Gold").severity is Severity.CRITICAL
    assert ask(rules, "X", severity="page").severity is Severity.INFO, "its meaning of a word wins"
    assert ask(Rules(read(OWN.replace("gold", "'-'"), "t")), "X", tier="").severity is Severity.WARNING
    assert ask(rules, "X", severity="crit", tier="silver").severity is Severity.CRITICAL
    assert ask(rules, "X", severity="warning", tier="gold").severity is Severity.CRITICAL, "its labels are asked first"


@pytest.mark.parametrize(
    ("labels", "severity", "category", "rule", "by"),
    [
        pytest.param(
            {"alertname": "Forced", "severity": "critical"},
            Severity.INFO, Category.SECURITY, "override", "override",
            id="a forced severity holds against the author",
        ),
        pytest.param(
            {"alertname": "Gentle", "severity": "warning"},
            Severity.WARNING, Category.OTHER, "default", "author",
            id="without force the author leads",
        ),
        pytest.param(
            {"alertname": "Gentle"}, Severity.CRITICAL, Category.OTHER, "override", "override",
            id="where there is no author",
        ),
        pytest.param(
            {"alertname": "Gentle", "job": "batch", "team": "pay"},
            Severity.CRITICAL, Category.OTHER, "override", "override",
            id="before a rule's severity",
        ),
        pytest.param(
            {"alertname": "Retold", "team": "pay"}, Severity.CRITICAL, Category.OTHER, "override", "payments",
            id="what it leaves open the rules say",
        ),
        pytest.param(
            {"alertname": "forced", "severity": "critical"}, Severity.CRITICAL, Category.OTHER, "default", "author",
            id="the name is exact",
        ),
    ],
)  # fmt: skip
def test_overrides(rules, labels, severity, category, rule, by):
    found, why = rules.classify(Alert(labels)), rules.explain(Alert(labels))
    assert (found.severity, found.category, found.rule, why.severity.by) == (severity, category, rule, by)


def test_an_override_says_its_own_text_and_where_it_stands(rules):
    found, why = ask(rules, "Forced"), rules.explain(Alert({"alertname": "Forced"}))
    assert (found.summary, found.runbook, found.confidence) == ("Known.", "https://wiki/forced", Confidence.HIGH)
    assert why.severity == why.category
    assert why.category.by == "override"
    assert why.category.at.endswith("/my-rules.yaml:23")
    assert ask(rules, "Retold").recommendations == ("Ask Bo.",)


def test_a_forced_severity_is_the_authors_for_the_floor(rules):
    assert rules.author_severity(Alert({"alertname": "Forced", "severity": "critical"})) is Severity.INFO
    assert rules.author_severity(Alert({"alertname": "Gentle", "severity": "warning"})) is Severity.WARNING


MODEL = Classification(
    Severity.WARNING, Category.ERRORS, Confidence.LOW, Source.LLM, "A model's words.", ("Look.",), model="m"
)


@pytest.mark.parametrize(
    ("labels", "severity", "category", "summary", "runbook"),
    [
        pytest.param(
            {"alertname": "X"}, Severity.WARNING, Category.ERRORS, "A model's words.", "", id="nothing to say"
        ),
        pytest.param(
            {"alertname": "X", "team": "pay"}, Severity.WARNING, Category.ERRORS, "A model's words.", "https://wiki/pay",
            id="of a rule the runbook alone",
        ),
        pytest.param(
            {"alertname": "Forced", "severity": "critical"},
            Severity.INFO, Category.SECURITY, "Known.", "https://wiki/forced",
            id="a forced override",
        ),
        pytest.param(
            {"alertname": "Gentle"}, Severity.CRITICAL, Category.ERRORS, "A model's words.", "",
            id="a severity where the author gave none",
        ),
        pytest.param(
            {"alertname": "Gentle", "severity": "info"}, Severity.WARNING, Category.ERRORS, "A model's words.", "",
            id="without force a model may raise the author's",
        ),
    ],
)  # fmt: skip
def test_a_models_verdict_is_overridden(rules, labels, severity, category, summary, runbook):
    found = rules.overridden(Alert(labels), MODEL)
    assert (found.severity, found.category, found.summary, found.runbook) == (severity, category, summary, runbook)
    assert (found.source, found.model, found.confidence) == (Source.LLM, "m", Confidence.LOW)


def test_a_table_without_overrides_gives_a_models_verdict_its_runbook():
    rules = Rules(read("version: 1\nrules: [{name: a, match: [x=y], runbook: 'https://wiki/a'}]", "t"))
    assert rules.overridden(Alert({"x": "y"}), MODEL).runbook == "https://wiki/a"
    rules = Rules(read("version: 1\ncategories: {errors: {runbook: 'https://wiki/e'}}", "t"))
    assert rules.overridden(Alert({"x": "y"}), MODEL).runbook == "https://wiki/e", "of the model's category"


def test_without_overrides_and_runbooks_a_models_verdict_is_left_alone():
    assert Rules.shipped().overridden(Alert({"alertname": "DiskFull"}), MODEL) is MODEL


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Payments are affected.", "Payments!"),
        ("https://wiki/pay", "https://wiki/pay2"),
        ("Call the network team.", "Call them."),
        ("https://wiki/net", "https://wiki/n"),
        ("Forced:", "Enforced:"),
        ("severity: info, force: true", "severity: info"),
        ("{severity: info, force", "{severity: noise, force"),
        ("category: security", "category: network"),
        ("Known.", "New."),
        ("https://wiki/forced", "https://wiki/f"),
        ("[Ask Bo.]", "[Ask Jo.]"),
        ("team=pay", "team=payments"),
        ("labels: [tier]", "labels: [rank]"),
        ("info: [page]", "noise: [page]"),
    ],
)
def test_whatever_changes_a_verdict_changes_the_hash(old, new):
    assert OWN.count(old) == 1
    shipped = Rules.shipped().tables
    before = Rules(read(OWN, "t"), *shipped)
    assert Rules(read(OWN.replace(old, new), "t"), *shipped).hash != before.hash
    assert Rules(read("# moved\n" + OWN, "elsewhere"), *shipped).hash == before.hash
    assert Rules(*shipped, read(OWN, "t")).hash != before.hash


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "cannot read my-rules.yaml: No such file or directory"),
        (b"\xff", "cannot read my-rules.yaml: it is not text"),
        (b"#" * 1_500_001, "my-rules.yaml has more than 1500000 bytes, want fewer"),
    ],
    ids=["missing", "not text", "too long"],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path, monkeypatch, content, problem):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / "my-rules.yaml").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        Rules.with_own((tmp_path / "my-rules.yaml").relative_to(tmp_path))
    assert caught.value.problems == (f"rules.file: {problem}",)


VALUES = ["", "a", "b", "ab", "aab"]
MATCHERS = [
    f'{name}{op}"{value}"'
    for name in ("x", "y", "alertname")
    for op, value in (("=", "a"), ("!=", "a"), ("=", ""), ("=~", "a+b?"), ("!~", ".*b"), ("=~", "b{1,2}|"), ("!=", "b"))
]
ROWS = st.fixed_dictionaries(
    {"match": st.lists(st.sampled_from(MATCHERS), max_size=4)},
    optional={
        "pattern": st.sampled_from([r"\ba", "b$", "a{2}", "zzz"]),
        "severity": st.sampled_from(["info", "critical"]),
        "category": st.sampled_from(["storage", "errors"]),
    },
).filter(lambda row: (row["match"] or "pattern" in row) and ("severity" in row or "category" in row))


@given(st.lists(ROWS, max_size=6), st.dictionaries(st.sampled_from(["x", "y", "alertname"]), st.sampled_from(VALUES)))
def test_rules_are_found_as_if_they_were_asked_one_by_one(rows, labels):
    rows = [
        {"name": f"r{n}", **row, "match": [m.replace("'", '"') for m in row["match"]]} for n, row in enumerate(rows)
    ]
    rules = Rules(read(json.dumps({"version": 1, "rules": rows}), "t"))
    severity = category = Reason("default")
    for rule in rules.rules:
        text = words(labels.get("alertname", ""))
        if matches_all(rule.match, labels) and (rule.pattern is None or rule.pattern.search(text)):
            if rule.severity and severity.by == "default":
                severity = Reason(rule.name, rule.at)
            if rule.category:
                category = Reason(rule.name, rule.at)
                break
    why = rules.explain(Alert(labels))
    assert (why.severity, why.category) == (severity, category)


def test_of_a_long_value_the_beginning_is_matched():
    rules = Rules(read("version: 1\nrules: [{name: a, match: ['pod=~\"a+\"'], category: other}]", "t"))
    assert rules.explain(Alert({"pod": "a" * 128 + "b"})).category.by == "a"
    assert rules.explain(Alert({"pod": "a" * 127 + "b"})).category.by == "default"


def test_a_value_is_cut_by_bytes_between_characters():
    rules = Rules(read("version: 1\nrules: [{name: a, match: ['pod=~\"(ä|a)+\"'], category: other}]", "t"))
    assert rules.explain(Alert({"pod": "ä" * 64 + "b"})).category.by == "a"
    assert rules.explain(Alert({"pod": "a" + "ä" * 63 + "äb"})).category.by == "a", "half a character is not shown"
    assert rules.explain(Alert({"pod": "ä" * 63 + "b"})).category.by == "default"


@pytest.mark.parametrize("value", ["\0", "\u202eeuler", "\u200b", "x" * 1_000_000, "\U0010ffff" * 1000, "\n"])
def test_hostile_values_and_names_get_a_verdict(rules, value):
    alert = Alert(
        {"alertname": value, "job": value, "team": value, "severity": value, value: value, value.upper(): "x"}
    )
    assert rules.classify(alert).source is Source.RULES
    assert rules.explain(alert).severity


def test_ten_thousand_labels_get_a_verdict(rules):
    assert ask(rules, "X", **{f"Severity{n}": "info" for n in range(10_000)}, SEVERITY="critical").rule == "default"
