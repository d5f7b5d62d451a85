"""What a table may cost is bounded when it is read: by counting, and alike everywhere."""

from __future__ import annotations

import pytest

from proxy.alert import Alert
from proxy.classification.rules import Rules
from proxy.classification.rules.conditions import kinds
from proxy.classification.rules.reading import read
from proxy.classification.rules.table import COLUMNS, MATCHERS_WEIGHT, PATTERNS_WEIGHT, RULES
from proxy.classification.rules.weighing import pattern_weights, weight
from proxy.errors import ConfigError
from proxy.matchers import Pattern


def mistakes(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        Rules.parse(text, "t")
    return list(caught.value.problems)


def many(rules: int, row: str) -> str:
    return "version: 1\nrules:\n" + "".join(
        f"- {{name: r{n}, severity: info, {row.replace('%d', str(n))}}}\n" for n in range(rules)
    )


@pytest.mark.parametrize(
    ("pattern", "places"),
    [
        (r"\bdisk\b", 2),
        (r"\b(disk|volume|pool)\b", 5),
        (r"\bout of memory\b", 4),
        (r"\bdisks?\b", 2),
        (r"\bdisks?full\b", 3),
        (r"\b(a|bb)full\b", 5),
        (r"\b(re)?boot\b", 4),
        (r"\bab(c|d)ef\b", 6),
        (r"disk", 20),
        (r"\bdisk.*full", 2 + 12 + 20),
        (r"\bdisk.*\bfull\b", 2 + 12 + 2),
        (r"\bdisk\d+x", 1 + 1 + 5),
        (r"\bp9[0-9]+\b", 2),
        (r"(?:a|b)", 10),
        (r"a.b", 5 + 12 + 5),
        (r"a\.b", 15),
    ],
)
def test_words_weigh_little_and_what_may_begin_anywhere_more(pattern, places):
    assert weight(Pattern(pattern)) == places


@pytest.mark.parametrize(
    "pattern",
    [
        r"(a|b)*a",
        r"a{3,9}",
        r"[^a]",
        r"\pL",
        r"(?P<n>a)",
        r"(?s)a",
        r"\b?a",
        r"é{2}",
        r"(a)+",
        "(" * 25 + "a" + ")" * 25,
    ],
)
def test_whatever_else_weighs_twice_its_instructions(pattern):
    found = Pattern(pattern)
    assert weight(found) == 2 * found.size


def test_a_matchers_expression_begins_where_the_value_begins():
    assert weight(Pattern(r"db-(a|b)"), whole=True) == 3
    assert weight(Pattern(r"db-.*"), whole=True) == 13
    assert weight(Pattern(r".*-db"), whole=True) == 12 + 15
    assert weight(Pattern(r"a b c"), whole=True) == 1, "a space is a letter there"


def test_the_shipped_table_could_be_anybodys():
    assert sum(pattern_weights(Rules.shipped().rules).values()) <= PATTERNS_WEIGHT


def test_patterns_that_weigh_too_much_together_are_refused_where_the_heaviest_stands():
    rows = many(60, "pattern: '[ab]*a%dbcdefg'") + "- {name: heavy, severity: info, pattern: 'abcdefghijklmnop'}\n"
    [problem] = mistakes(rows)
    assert problem.startswith("t:63: the patterns weigh ")
    assert f"together, want at most {PATTERNS_WEIGHT}; heavy has the heaviest, 80; use words between " in problem


def test_an_expression_counts_for_each_label_it_is_on():
    row = "match: ['l%d=~\".*a.*\"']"
    assert len(read(many(20, row), "t").rules) == 20
    [problem] = mistakes(many(40, row))
    assert problem == (
        f"t:3: the regular expressions on labels weigh 1160 together, want at most {MATCHERS_WEIGHT}; r0 has the "
        "heaviest, 29; use = and (a|b) where you can, and fewer"
    )
    assert len(read(many(400, "match: ['l=~\".*a.*\"', 'n!=x%d']"), "t").rules) == 400


def test_kinds_of_matchers_are_few():
    [problem] = mistakes(many(COLUMNS + 1, "match: ['l%d=x']"))
    assert problem.startswith(f"t:1: matchers of {COLUMNS + 1} kinds ")
    assert len(read(many(COLUMNS, "match: ['l%d=x']"), "t").rules) == COLUMNS


def test_those_that_must_not_hold_stand_together_and_each_counts():
    rules = Rules.parse("version: 1\nrules: [{name: a, severity: info, match: [x!=a, x!=b, 'y!~a+', 'y!~b+']}]", "t")
    assert len(kinds(rules.rules)) == 2
    for labels, by in (({}, "a"), ({"x": "a"}, "default"), ({"x": "b"}, "default"), ({"y": "bb"}, "default")):
        assert rules.explain(Alert(labels)).severity.by == by


def test_expressions_too_large_together_are_not_made():
    problems = mistakes(many(300, "pattern: '(a{1,50}){1,20}%d'"))
    assert len(problems) == 1
    assert ": the regular expressions up to here have 3" in problems[0]
    [problem] = mistakes("version: 1\nrules: [{name: a, severity: info, pattern: '" + r"\pL" * 300 + "'}]")
    assert problem.endswith("pattern too large - compile failed")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            many(RULES + 1, "pattern: a"),
            "t:3: 2001 rules, want at most 2000; one pattern may stand for many names: (a|b)",
        ),
        (
            "version: 1\noverrides:\n" + "".join(f"  A{n}: {{severity: info}}\n" for n in range(RULES + 1)),
            "t:3: 2001 overrides, want at most 2000; rules are for many names at once",
        ),
        ("version: 1\nrules:\n- &a {name: a}\n" + "- *a\n" * 3000, "t:4: an alias; write out what it stands for"),
        ("version: 1\ntests: [" + "a, " * 80_000 + "]", "t:2: not YAML: more than 80000 values"),
        ("version: 1\ntests: [*a]", "t:2: an alias; write out what it stands for"),
        ("version: 1\n---\nversion: 1", "t:2: not YAML: another document begins here; a file is one"),
        ("version: 1\n? [a]\n: b", "t:2: want a word as a key, one of version, "),
        ("version: 1\n<<: {rules: []}", "t:2: unknown key <<; "),
        (
            "version: 1\nauthor_severity: {words: {info: [" + "a" * 65 + "]}}",
            "t:2: a word of 65 characters, want at most 64",
        ),
        ("version: 1\nrules: !!python/object:os.system [a]", "t:2: want a mapping with name, "),
    ],
    ids=["rules", "overrides", "aliases", "values", "no anchor", "documents", "key", "merge", "word", "tag"],
)
def test_what_is_too_much_is_not_looked_into(text, problem):
    [found] = mistakes(text)
    assert found.startswith(problem)
