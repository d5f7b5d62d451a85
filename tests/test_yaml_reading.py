"""Tables of rules and files of context are read alike: what YAML may hold, and how much is said of what it may not."""

from __future__ import annotations

import pytest
import yaml
from contexts import context

from proxy.classification.rules.reading import read
from proxy.errors import ConfigError
from proxy.matchers import Pattern
from proxy.yaml_composing import compose
from proxy.yaml_reading import PROBLEMS, YamlReader

TABLE, CONTEXT = (read, "version: 1\nrules: []\ntests: []\n"), (lambda text, _: context(text), "services: []\n\n\n")
BOTH = pytest.mark.parametrize(("reader", "begin"), [TABLE, CONTEXT], ids=["table", "context"])
WITH_AND_WITHOUT = pytest.mark.parametrize("libyaml", [True, False])


def refused(reader, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        reader(text, "c")
    return list(caught.value.problems)


TEXT = """\
a: [1, "x", &n {b: ~, c: !!str 3, d: 'q'}]
e: !own
f: |
  text
"""


@WITH_AND_WITHOUT
def test_nodes_are_those_of_pyyaml(monkeypatch, libyaml):
    def plain(node):
        if isinstance(node, yaml.ScalarNode):
            return node.tag, node.value, node.start_mark.line
        parts = [(plain(k), plain(v)) for k, v in node.value] if isinstance(node, yaml.MappingNode) else None
        return node.tag, parts or [plain(one) for one in node.value], node.start_mark.line

    if not libyaml:
        monkeypatch.delattr(yaml, "CSafeLoader")
    assert plain(compose(TEXT, "c")) == plain(yaml.compose(TEXT, Loader=yaml.SafeLoader))


@BOTH
@WITH_AND_WITHOUT
@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ("x: *a", "c:4: an alias; write out what it stands for"),
        ("x: &a [*a]", "c:4: an alias; write out what it stands for"),
        ("---\nx: 1", "c:4: not YAML: another document begins here; a file is one"),
        ("x: [" + "a, " * 80_000 + "]", "c:4: not YAML: more than 80000 values"),
        ("x: " + "[" * 21 + "]" * 21, "c:1: not YAML: a character or a nesting it does not allow"),
        ("x: [", "c:4: not YAML: expected the node content, but found '<stream end>'"),
        ("x: @", "c:4: not YAML: found character '@' that cannot start any token"),
    ],
    ids=["alias", "an alias of itself", "documents", "values", "nesting", "no end", "character"],
)
def test_what_is_beyond_a_file_is_refused_in_one_message(monkeypatch, reader, begin, libyaml, more, problem):
    if not libyaml:
        monkeypatch.delattr(yaml, "CSafeLoader")
    assert refused(reader, begin + more) == [problem]


@BOTH
def test_a_hundred_mistakes_are_told_and_reading_ends_at_the_next(reader, begin):
    problems = refused(reader, begin + "".join(f"x{n}: 1\n" for n in range(PROBLEMS)))
    assert [problem.split(";")[0] for problem in problems] == [f"c:{n + 4}: unknown key x{n}" for n in range(PROBLEMS)]
    more = refused(reader, begin + "".join(f"x{n}: 1\n" for n in range(1000)))
    assert more == [*problems, "c: more mistakes than these 100; reading ended there"]


@WITH_AND_WITHOUT
@pytest.mark.parametrize(
    ("reader", "text"),
    [
        (TABLE[0], 'version: 1\ntests: [{labels: {alertname: "\\ud800"}, severity: info}]'),
        (CONTEXT[0], '\nservices: [{name: a, about: "\\ud800"}]'),
    ],
    ids=["table", "context"],
)
def test_half_a_character_is_refused(monkeypatch, libyaml, reader, text):
    if not libyaml:
        monkeypatch.delattr(yaml, "CSafeLoader")
    assert refused(reader, text) == ["c:2: half a character (a lone surrogate), which no text can have"]


@BOTH
def test_a_message_repeats_little_of_the_file_and_in_one_line(reader, begin):
    [problem] = refused(reader, begin + "? " + "x" * 50_000 + "\n: 1")
    assert problem.startswith(f"c:4: unknown key {'x' * 59}…; want one of ")
    [problem] = refused(reader, begin + '"a\\n\\ud800\\e": 1')
    assert problem.startswith("c:4: unknown key a\\n\\ud800\\x1b; want one of ")


@pytest.mark.parametrize(
    "text",
    [
        "version: 1\nrules: [{name: NAME, severity: NAME, pattern: a}, {name: NAME, severity: info, pattern: 1NAME}]",
        "version: 1\noverrides: {NAME: {severity: info}, NAME: {severity: info}}",
        "version: 1\ntests: [{severity: info, labels: {NAME: a, NAME: b, c: !x NAME}}]",
    ],
    ids=["rules", "overrides", "labels"],
)
def test_a_long_text_of_a_table_is_not_repeated_whole(text):
    assert max(map(len, refused(read, text.replace("NAME", "x" * 900).replace(" 1x", " !x x")))) < 200


def test_what_libyaml_can_read_is_not_parsed_again_to_refuse_it(monkeypatch):
    monkeypatch.setattr(yaml, "CSafeLoader", getattr(yaml, "CSafeLoader", yaml.SafeLoader), raising=False)
    monkeypatch.setattr(yaml, "SafeLoader", None)
    assert refused(compose, "x: *a") == ["c:1: an alias; write out what it stands for"]


@pytest.mark.parametrize(
    ("reader", "text"),
    [
        (TABLE[0], "version: 1\nauthor_severity:\ncategories: {other: }\nrules:\noverrides:\ntests:\n"),
        (CONTEXT[0], "services:\nexamples: ~\nprompts: null\n"),
    ],
    ids=["table", "context"],
)
def test_a_key_of_many_may_hold_none(reader, text):
    assert reader(text, "c")


@pytest.mark.parametrize(
    ("room", "problem"), [(0, "bad regular expression '('"), (-1, "the regular expressions up to")]
)
def test_no_expression_is_made_once_they_are_too_large_together(room, problem):
    reader = YamlReader("c", Pattern("abc").size + room)
    found = list(reader.matchers(reader.compose("""['x=~"abc"', 'y=~"("', z=a]"""), 3))
    assert [matcher.name for matcher, _ in found] == (["x", "z"] if room == 0 else ["x"])
    [told] = refused(lambda *_: reader.finish(), "")
    assert told.startswith(f"c:1: {problem}")


@pytest.mark.parametrize(("length", "shown"), [(60, "x" * 60), (61, "x" * 59 + "…")])
def test_a_text_is_repeated_up_to_its_bound(length, shown):
    assert refused(read, "version: 1\n" + "x" * length + ": 1")[0].startswith(f"c:2: unknown key {shown}; want ")
