"""A table is tested like code: what nobody gets to, what contradicts itself, and what does not come out as expected."""

from __future__ import annotations

import pytest

from proxy.classification.rules import Rules
from proxy.classification.rules.checking import problems
from proxy.classification.rules.reading import read


def found(*rows: str, tests: str = "", behind: str = "") -> list[str]:
    text = "version: 1\nrules:\n" + "".join(f"- {{{row}}}\n" for row in rows) + tests
    tables = [read(text, "t")] + ([read(behind, "behind")] if behind else [])
    return problems(Rules(*tables))


A = "name: a, pattern: disk, category: storage"


@pytest.mark.parametrize(
    ("rows", "unreached"),
    [
        pytest.param([A, "name: b, pattern: disk, severity: info"], ["b"], id="the same pattern"),
        pytest.param([A, "name: b, pattern: disk, match: [x=y], category: other"], ["b"], id="and a matcher"),
        pytest.param([A, "name: b, pattern: disk full, category: other"], ["b"], id="a longer word"),
        pytest.param([A, "name: b, pattern: '(full disk|disks)', category: other"], ["b"], id="only longer words"),
        pytest.param([A, "name: b, pattern: '(full disk|pool)', category: other"], [], id="not only longer words"),
        pytest.param([A, "name: b, pattern: 'disk.*full', category: other"], [], id="more than words is not judged"),
        pytest.param(
            ["name: a, pattern: '\\bdisk\\b', category: storage", "name: b, pattern: disk full, category: other"],
            [],
            id="a word that may be the end of another",
        ),
        pytest.param(
            ["name: a, pattern: '\\bdisk\\b', category: storage", "name: b, pattern: '\\bdisk full', category: other"],
            ["b"],
            id="a word by itself",
        ),
        pytest.param(
            ["name: a, pattern: 'DISK$', category: storage", "name: b, pattern: '\\bfull disk\\b', category: other"],
            [],
            id="only at the end",
        ),
        pytest.param(
            ["name: a, pattern: disk, severity: info", "name: b, pattern: disk, category: other"], [], id="goes on"
        ),
        pytest.param(
            ["name: a, match: [x=y], category: other", "name: b, match: [x=y, z=z], severity: info"],
            ["b"],
            id="fewer matchers",
        ),
        pytest.param(
            ["name: a, match: ['x=~\"y|z\"'], category: other", "name: b, match: [x=y], pattern: q, severity: info"],
            ["b"],
            id="a matcher that takes it in",
        ),
        pytest.param(
            ["name: a, match: [x=y, z=z], category: other", "name: b, match: [x=y], severity: info"],
            [],
            id="more matchers",
        ),
        pytest.param(["name: b, match: [x=y, x=z], category: other"], ["b"], id="two values at once"),
        pytest.param(["name: b, match: ['x=y', 'x!~y+'], category: other"], ["b"], id="a value that is excluded"),
        pytest.param(
            ["name: a, pattern: disk, category: other", "name: c, pattern: pool, category: other",
             "name: b, pattern: (disk|pool), category: other"],
            ["b"],
            id="several before it",
        ),
        pytest.param(
            ["name: a, pattern: DISK, category: storage", "name: b, pattern: Disk Full, category: other"],
            ["b"],
            id="in any case",
        ),
        pytest.param(
            ["name: a, pattern: disk, match: [x=y], category: storage", "name: b, pattern: disk full, category: other"],
            [],
            id="where it asks for more",
        ),
        pytest.param(
            ["name: a, match: ['x=~\"y.*\"'], category: other", "name: b, match: ['x=~\"y+|z\"'], severity: info"],
            [],
            id="regular expressions are not compared",
        ),
        pytest.param(
            [A, "name: b, pattern: disk full, category: other, examples: [DiskFull]"], ["b"], id="told once, not twice"
        ),
        pytest.param([A, "name: b, pattern: pool, category: other"], [], id="fine"),
    ],
)  # fmt: skip
def test_unreachable_rules(rows, unreached):
    said = found(*rows)
    assert [problem.split(": ")[1].split(" ")[0] for problem in said] == unreached
    assert all(" is never reached: " in problem or " never matches: " in problem for problem in said)


def test_it_is_said_what_comes_before_and_what_to_do():
    assert found(A, "name: b, pattern: disk full, category: other", "name: c, match: [x=y, x=z], category: other") == [
        "t:4: b is never reached: a (t:3) ends the search first; move it up, or take it out",
        't:5: c never matches: x="y" and x="z" cannot hold together; correct one of them',
    ]


def test_contradictions():
    assert found(A, "name: b, pattern: disk, category: errors") == [
        "t:4: b says category errors, and a (t:3), which asks for the same, storage; keep one"
    ]
    assert found("name: a, match: [x=y, z=z], severity: info", "name: b, match: [z=z, x=y], severity: critical") == [
        "t:4: b says severity critical, and a (t:3), which asks for the same, info; keep one"
    ]
    assert found("name: a, match: [x=y], severity: info", "name: b, match: [x=y], category: other") == []


def test_examples():
    assert found("name: a, pattern: disk, match: [x=y], category: other, examples: [DiskFull]") == []
    assert found("name: a, pattern: disk full, category: other, examples: [DiskFull, Diskfull]") == [
        "t:3: a does not match its example Diskfull, read as 'diskfull'; correct one of them"
    ]
    assert found(A, "name: b, pattern: 'full', category: other, examples: [PoolFull, DiskFull]") == [
        "t:4: b is not reached by its example DiskFull: a (t:3) ends the search; move it up, or correct the example"
    ]
    assert found("name: a, match: ['x=~\"y+\"'], category: other, examples: [Any]") == [
        "t:3: a does not match its example Any, read as 'any'; correct one of them"
    ]


def test_tests():
    tests = "tests:\n- {labels: {alertname: DiskFull}, severity: warning, category: storage, rule: a}\n"
    assert found(A, tests=tests) == []
    tests += "- {labels: {alertname: DiskFull, severity: page}, severity: info, category: errors, rule: b}\n"
    tests += "- {labels: {alertname: X}, rule: a}\n"
    words = "author_severity: {labels: [severity], words: {critical: [page]}}\n"
    assert found(A, tests=tests + words) == [
        "t:6: the test wants severity info and gets critical, from author (severity=page); correct one of them",
        "t:6: the test wants category errors and gets storage, from a (t:3); correct one of them",
        "t:6: the test wants rule b and gets a, from a (t:3); correct one of them",
        "t:7: the test wants rule a and gets default, from default; correct one of them",
    ]


def test_the_tables_behind_are_asked_and_not_checked():
    behind = "version: 1\nrules:\n" + f"- {{{A}}}\n" + "- {name: b, pattern: disk, category: errors}\n"
    assert found("name: x, pattern: pool, category: other", behind=behind) == []
    tests = "tests:\n- {labels: {alertname: DiskFull}, category: storage, rule: a}\n"
    assert found("name: x, pattern: pool, category: other", tests=tests, behind=behind) == []
    assert found("name: x, pattern: pool, category: other", tests=tests) != []
