"""A table is read with all its mistakes told at once, and within bounds that keep every alert quick."""

from __future__ import annotations

import pytest
import yaml

from proxy.alert import Alert
from proxy.classification.classification import Category, Severity
from proxy.classification.rules import Rules
from proxy.classification.rules.reading import read
from proxy.classification.rules.table import RULES
from proxy.errors import ConfigError

BAD_RUNBOOK = "bad runbook, want an http or https URL of at most 300 characters without user, password and spaces"
NO_RULE = "want a mapping with name, match, pattern, severity, category, summary, recommendations, runbook, examples"
RULE = "version: 1\nrules:\n- name: a\n  pattern: x\n  category: other\n"


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        pytest.param("", ["t:1: empty, want version: 1 and rules:"], id="empty"),
        pytest.param("~", ["t:1: empty, want version: 1 and rules:"], id="null"),
        pytest.param(
            RULE + "  severity:\n",
            ["t:6: want a text; put it in quotes if it is meant as one"],
            id="a key with nothing",
        ),
        pytest.param("a: [", ["t:1: not YAML: expected the node content, but found '<stream end>'"], id="not YAML"),
        pytest.param("a: \x01", ["t:1: not YAML: a character or a nesting it does not allow"], id="control character"),
        pytest.param("[" * 2000, ["t:1: not YAML: a character or a nesting it does not allow"], id="endless nesting"),
        pytest.param(
            "- a",
            ["t:1: want a mapping with version, author_severity, categories, rules, overrides, tests"],
            id="a list",
        ),
        pytest.param("rules: []", ["t:1: version is missing, want version: 1"], id="no version"),
        pytest.param("version: 2", ["t:1: unknown version, want version: 1"], id="another version"),
        pytest.param("version: 1\nrule: []", ["t:2: unknown key rule; did you mean rules?"], id="misspelt key"),
        pytest.param(
            "version: " + "[" * 21 + "]" * 21,
            ["t:1: not YAML: a character or a nesting it does not allow"],
            id="deep nesting",
        ),
        pytest.param(
            "version: 1\nxyz: 1",
            ["t:2: unknown key xyz; want one of version, author_severity, categories, rules, overrides, tests"],
            id="key",
        ),
        pytest.param("version: 1\nversion: 1", ["t:2: version is given twice; keep one"], id="key twice"),
        pytest.param("version: 1\nrules: x", ["t:2: want a list, each entry after a -"], id="rules not a list"),
        pytest.param(
            "version: 1\nrules: [x]",
            [f"t:2: {NO_RULE}"],
            id="rule not a mapping",
        ),
        pytest.param(
            "version: 1\nrules:\n- {}",
            [
                "t:3: the rule has no name, want for example name: disk-filling",
                "t:3: the rule needs match or pattern, or it would hold for every alert",
                "t:3: the rule says nothing, want a severity, a category, a summary or another text",
            ],
            id="empty rule",
        ),
        pytest.param(
            RULE.replace("name: a", "name: A b"),
            ["t:3: bad rule name 'A b', want a-z, 0-9 and hyphens, at most 32 characters"],
            id="bad name",
        ),
        pytest.param(
            RULE.replace("name: a", "name: " + "a" * 33),
            [f"t:3: bad rule name '{'a' * 33}', want a-z, 0-9 and hyphens, at most 32 characters"],
            id="long name",
        ),
        *[
            pytest.param(
                RULE.replace("name: a", f"name: {name}"),
                [f"t:3: {name} is what a verdict is called that no rule gave; give the rule another name"],
                id=f"reserved name {name}",
            )
            for name in ("default", "author", "override")
        ],
        pytest.param(
            RULE + RULE.split("rules:\n")[1],
            ["t:6: a rule a stands in line 3 already; give this one its own name"],
            id="name twice",
        ),
        pytest.param(
            RULE.replace("name: a", "name: yes"),
            ["t:3: want a text; put yes in quotes if it is meant as one"],
            id="bool",
        ),
        pytest.param(RULE.replace("name: a", "name: [a]"), ["t:3: want a text"], id="list as text"),
        pytest.param(
            RULE.replace("name: a", "name: ''"),
            ["t:3: want a text; put it in quotes if it is meant as one"],
            id="blank",
        ),
        pytest.param(
            RULE.replace("pattern: x", "pattern: (x"),
            ["t:4: bad regular expression '(x': missing ): (x"],
            id="bad pattern",
        ),
        pytest.param(
            RULE.replace("pattern: x", "match:\n  - a=b\n  - 'a=~\"[\"'"),
            ["t:6: bad regular expression '[': missing ]: ["],
            id="bad matcher",
        ),
        pytest.param(
            RULE.replace("category: other", "category: disk\n  severity: page"),
            [
                f"t:5: unknown category disk, want one of {', '.join(Category)}",
                "t:6: unknown severity page, want one of critical, warning, info, noise",
            ],
            id="unknown category and severity",
        ),
        pytest.param(
            RULE + "  recommendations: [a, b, c, d]",
            ["t:6: 4 recommendations, want at most 3"],
            id="many recommendations",
        ),
        pytest.param(
            RULE + f"  recommendations:\n  - {'x' * 121}",
            ["t:7: recommendation of 121 characters, want at most 120"],
            id="long recommendation",
        ),
        pytest.param(
            "version: 1\nauthor_severity:\n  words:\n    critical: [red]\n    info: [RED]\n    fine: []",
            [
                "t:5: RED means critical already; keep it in one of the two lists",
                "t:6: unknown key fine; want one of critical, warning, info, noise",
            ],
            id="a word twice",
        ),
        pytest.param(
            RULE + f"  summary: {'x' * 161}", ["t:6: summary of 161 characters, want at most 160"], id="long summary"
        ),
        *[
            pytest.param(
                RULE + f"  runbook: {link}",
                [f"t:6: {BAD_RUNBOOK}"],
                id=f"runbook {n}",
            )
            for n, link in enumerate(
                [
                    "javascript:alert(1)",
                    "ftp://x/y",
                    "'//x/y'",
                    "x",
                    "https:///x",
                    "http://a b",
                    "'http://[x/y'",
                    "https://u:p@x/",
                    f"https://x/{'y' * 291}",
                    '"https://x/\\ny"',
                ]
            )
        ],
        pytest.param(
            RULE + "  match: [" + ", ".join(f"a{n}=b" for n in range(17)) + "]",
            ["t:6: 17 matchers, want at most 16; a regular expression may stand for many values: (a|b)"],
            id="many matchers",
        ),
        pytest.param(
            "version: 1\noverrides: []",
            ["t:2: want a mapping"],
            id="overrides are a mapping",
        ),
        pytest.param(
            "version: 1\noverrides:\n  A: {}\n  B: {force: true}\n  C: {category: other, force: true}\n"
            "  D: {severity: info, force: maybe}\n  D: {severity: info}\n  7: {severity: info}",
            [
                "t:3: the override says nothing, want a severity, a category, a summary or another text",
                "t:4: the override says nothing, want a severity, a category, a summary or another text",
                "t:5: force is for a severity, and there is none; give one or leave force out",
                "t:6: want true or false",
                "t:7: D is overridden in t:6 already; keep one",
                "t:8: want a text; put 7 in quotes if it is meant as one",
            ],
            id="overrides",
        ),
        pytest.param(
            "version: 1\ntests:\n- {}\n- {labels: {a: 1, b: c, b: d}, severity: red}",
            [
                "t:3: the test expects nothing, want a severity, a category or a rule",
                "t:3: the test has no labels, want for example labels: {alertname: DiskFull}",
                "t:4: b is given twice; keep one",
                "t:4: unknown severity red, want one of critical, warning, info, noise",
                "t:4: want a text; put 1 in quotes if it is meant as one",
            ],
            id="tests",
        ),
        pytest.param(
            "version: 1\ncategories:\n  disk: {}\n  other: {summary: 3, name: x}",
            [
                "t:3: unknown key disk; want one of " + ", ".join(Category),
                "t:4: unknown key name; want one of summary, recommendations, runbook",
                "t:4: want a text; put 3 in quotes if it is meant as one",
            ],
            id="categories",
        ),
    ],
)
def test_every_mistake_is_told_with_its_line(text, problems):
    with pytest.raises(ConfigError) as caught:
        Rules.parse(text, "t")
    assert list(caught.value.problems) == problems


def mistakes(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        Rules.parse(text, "t")
    return list(caught.value.problems)


def many(rules: int, row: str) -> str:
    return "version: 1\nrules:\n" + "".join(f"- {{name: r{n}, severity: info, {row % n}}}\n" for n in range(rules))


def test_a_pattern_that_many_rules_share_is_counted_once():
    assert len(read(many(RULES, f"match: ['job=~\"{'abc' * 100}\"', 'a=\"%d\"']"), "t").rules) == RULES


def test_a_table_of_2000_rules_is_read_and_asked():
    rules = Rules.parse(many(RULES, "pattern: '\\bword\\b', match: ['x=\"%d\"']"), "t")
    assert rules.explain(Alert({"alertname": "a word", "x": "1999"})).severity.by == "r1999"


@pytest.mark.parametrize("pattern", [r"((((a+)+)+)+)+$", r"(a|aa)+$", r"(a|a?)+$", r"(.*a){1,12}$", r"^(a*)*(a*)*b"])
def test_patterns_that_would_hold_up_a_backtracking_search_do_not(pattern):
    rules = Rules.parse(
        f"version: 1\nrules:\n- {{name: a, pattern: '{pattern}', match: ['pod!~\"{pattern}\"'], category: other}}", "t"
    )
    labels = {"alertname": "a" * 119 + "!", "pod": "a" * 100_000 + "!"}
    assert rules.classify(Alert(labels)).severity is Severity.WARNING


def test_without_libyaml_a_table_is_read_alike(monkeypatch):
    monkeypatch.delattr(yaml, "CSafeLoader")
    assert [rule.at for rule in read(RULE, "t").rules] == ["t:3"]
