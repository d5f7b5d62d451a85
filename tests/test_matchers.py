"""Matchers mean here what they mean in Alertmanager."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.matchers import (
    PATTERN_LENGTH,
    Matcher,
    Op,
    Pattern,
    PatternSet,
    matches_all,
    parse_matcher,
    parse_matchers,
)

NAMES = st.from_regex(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,8}", fullmatch=True) | st.text(min_size=1, max_size=8)
VALUES = st.text(alphabet=st.characters(codec="utf-8"), max_size=20) | st.text('ab",\\\n{}=~! ', max_size=12)
PLAIN = st.builds(Matcher, NAMES, st.sampled_from([Op.EQUAL, Op.NOT_EQUAL]), VALUES)
REGEX = st.builds(
    lambda name, op, value: Matcher(name, op, re.escape(value)),
    NAMES,
    st.sampled_from([Op.REGEX, Op.NOT_REGEX]),
    st.text("ab\",\\.{}'", max_size=12),
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", [], id="empty text holds none"),
        pytest.param(" { } ", [], id="empty braces hold none"),
        pytest.param('foo="bar"', [("foo", "=", "bar")], id="one matcher"),
        pytest.param('{foo = "bar", dings != "bums", }', [("foo", "=", "bar"), ("dings", "!=", "bums")], id="braces"),
        pytest.param("foo=bar,dings!=bums", [("foo", "=", "bar"), ("dings", "!=", "bums")], id="unquoted values"),
        pytest.param("foo = two words , b=c", [("foo", "=", "two words"), ("b", "=", "c")], id="unquoted with a space"),
        pytest.param("foo=", [("foo", "=", "")], id="empty unquoted value"),
        pytest.param('foo=,bar=""', [("foo", "=", ""), ("bar", "=", "")], id="empty values in a list"),
        pytest.param('code=~"5..", job!~"x|y"', [("code", "=~", "5.."), ("job", "!~", "x|y")], id="patterns"),
        pytest.param(r"code=~\d+", [("code", "=~", r"\d+")], id="backslash before a letter stays"),
        pytest.param(r'q="a, \"b\"\n\\"', [("q", "=", 'a, "b"\n\\')], id="escapes and a comma inside quotes"),
        pytest.param(r"q=a\"b", [("q", "=", 'a"b')], id="escaped quote in an unquoted value"),
        pytest.param("q=a\\", [("q", "=", "a\\")], id="backslash at the end"),
        pytest.param("a==b", [("a", "=", "=b")], id="a second equals sign belongs to the value"),
        pytest.param('"k8s.io/name"="x"', [("k8s.io/name", "=", "x")], id="quoted name"),
        pytest.param("\t a=b\n,\n c=d ", [("a", "=", "b"), ("c", "=", "d")], id="whitespace everywhere"),
    ],
)
def test_matchers_are_read_as_alertmanager_reads_them(text, expected):
    assert [(m.name, m.op.value, m.value) for m in parse_matchers(text)] == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("foo", "want name=", id="no operator"),
        pytest.param("=bar", "want name=", id="no name"),
        pytest.param('""="bar"', "needs a label name", id="empty name"),
        pytest.param("foo-bar=x", "want name=", id="bad name"),
        pytest.param("a=b,,c=d", "bad matcher at ',c=d'", id="two commas"),
        pytest.param(",", "bad matcher at ','", id="a comma alone"),
        pytest.param('a="b', "want name=", id="open quote"),
        pytest.param('a="b"c', "want name=", id="text after the quote"),
        pytest.param('a=b"c', "quote values that hold quotes", id="quote inside"),
        pytest.param("{a=b", "missing }", id="open brace"),
        pytest.param("a=b}", "quote values that hold quotes, commas or braces", id="brace alone"),
        pytest.param('a=~"("', "missing )", id="open group"),
        pytest.param('a!~"["', "missing ]", id="open class"),
        pytest.param('a=~"*"', "no argument for repetition", id="nothing to repeat"),
        pytest.param("a=~" + "x" * (PATTERN_LENGTH + 1), "longer than 1000", id="long pattern"),
    ],
)
def test_mistakes_are_told(text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_matchers(text)


@pytest.mark.parametrize("text", ["", "a=b,c=d"])
def test_one_matcher_is_one(text):
    with pytest.raises(ValueError, match="want one matcher, not"):
        parse_matcher(text)


def test_an_unknown_operator_is_refused():
    with pytest.raises(ValueError, match="=="):
        Matcher("a", "==", "b")


def test_matchers_are_written_as_alertmanager_writes_them():
    assert str(Matcher("a", Op.NOT_REGEX, 'b\n"c\\d')) == r'a!~"b\n\"c\\d"'
    assert str(Matcher("k8s.io/name", Op.EQUAL, "")) == '"k8s.io/name"=""'


@given(PLAIN | REGEX)
def test_what_is_written_is_read_back(matcher):
    assert parse_matcher(str(matcher)) == matcher


@given(st.lists(PLAIN | REGEX, max_size=5))
def test_lists_are_read_back(matchers):
    assert parse_matchers("{" + ",".join(map(str, matchers)) + "}") == tuple(matchers)


@given(st.text('ab="\\,{}~! \n', max_size=30))
def test_any_text_is_read_or_refused(text):
    try:
        found = parse_matchers(text)
    except ValueError:
        return
    assert parse_matchers(",".join(map(str, found))) == found


@pytest.mark.parametrize(
    ("text", "labels", "holds"),
    [
        pytest.param("a=b", {"a": "b"}, True, id="equal"),
        pytest.param("a=b", {"a": "B"}, False, id="case counts"),
        pytest.param("a!=b", {"a": "b"}, False, id="not equal"),
        pytest.param("a!=b", {}, True, id="missing is not b"),
        pytest.param('a=""', {}, True, id="missing is empty"),
        pytest.param('a!=""', {}, False, id="missing is not set"),
        pytest.param("a=~.*", {}, True, id="empty matches the pattern of anything"),
        pytest.param("a=~.+", {}, False, id="empty does not match one or more"),
        pytest.param("a!~.+", {}, True, id="negated on a missing label"),
        pytest.param("a=~b", {"a": "abc"}, False, id="patterns are anchored"),
        pytest.param("a=~b|abc", {"a": "abc"}, True, id="every alternative is anchored"),
        pytest.param("a=~b|a", {"a": "abc"}, False, id="no alternative is a prefix"),
        pytest.param("a!~b|abc", {"a": "abc"}, False, id="negated pattern"),
        pytest.param("a=~b.*", {"a": "b\nc"}, False, id="a dot is no line feed"),
        pytest.param("a=~b", {"a": "b\n"}, False, id="nothing may follow, not even a line feed"),
        pytest.param('a=~"(?s)b.*"', {"a": "b\nc"}, True, id="the s flag lets it be one"),
        pytest.param('a=~"(?i)watchdog"', {"a": "WatchDog"}, True, id="the i flag"),
    ],
)
def test_matching(text, labels, holds):
    assert parse_matcher(text).matches(labels) is holds


def test_all_must_hold():
    matchers = parse_matchers("a=b,c=d")
    assert matches_all(matchers, {"a": "b", "c": "d"})
    assert not matches_all(matchers, {"a": "b"})
    assert matches_all((), {})


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        pytest.param("b+", "abbc", True, id="a part"),
        pytest.param("^b", "ab", False, id="the beginning"),
        pytest.param("a$", "ab", False, id="the end"),
        pytest.param(r"\bfull\b", "disk full now", True, id="a word"),
        pytest.param(r"\bfull\b", "fuller", False, id="no part of a word"),
        pytest.param(r"\Bll", "full", True, id="inside a word"),
        pytest.param(r"\bb", "éb", True, id="words are ASCII"),
        pytest.param(r"\bb", "_b", False, id="an underscore belongs to a word"),
        pytest.param("b", "a\nb", True, id="after a line feed"),
        pytest.param("", "x", True, id="nothing is everywhere"),
    ],
)
def test_searching(pattern, text, found):
    assert Pattern(pattern).search(text) is found


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("a{2,3}", "aaa", True),
        ("(?:a|b|)c", "c", True),
        ("(?i:A)b", "ab", True),
        ("[[:alpha:]]+", "ab", True),
        (r"\pL", "é", True),
        pytest.param(r"\d", "٣", False, id="digits are ASCII"),
        pytest.param(".", "\n", False, id="a dot is no line feed"),
        pytest.param("é.🔥", "éx🔥", True, id="characters, not bytes"),
    ],
)
def test_the_language_of_patterns_is_gos(pattern, text, found):
    assert Pattern(pattern).fullmatch(text) is found


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        pytest.param(r"(a)\1", "escape", id="backreference"),
        pytest.param("(?=a)", "(?=", id="lookahead"),
        pytest.param("[z-a]", "range", id="range backwards"),
        pytest.param("a)", "unexpected )", id="closing parenthesis"),
        pytest.param("a{1001}", "repetition", id="high count"),
        pytest.param("a\\", "trailing", id="backslash at the end"),
    ],
)
def test_patterns_that_are_refused(pattern, why):
    with pytest.raises(ValueError, match=re.escape(why)):
        Pattern(pattern)


@pytest.mark.parametrize("pattern", ["(a+)+", "(a|a)*", "(a|aa)+", "(a*)*", "a*a*a*a*a*a*", "(a?){50}a{50}"])
def test_no_pattern_backtracks(pattern):
    # Python's re would be busy for longer than the universe is old; the test's own time limit is the judge.
    assert not Pattern(pattern).fullmatch("a" * 20_000 + "b")


MANY = [Pattern(text, ignore_case=True) for text in ("disk", "^a{2,3}$", "k full", "", "A.c", "[0-9]{2}")]


@given(st.text("aDISKfull \n3c", max_size=12))
def test_many_patterns_find_what_each_of_them_finds(text):
    found = PatternSet(MANY, ignore_case=True).find(text)
    assert sorted(found) == [n for n, pattern in enumerate(MANY) if pattern.search(text)]
    found = PatternSet(MANY, ignore_case=True, whole=True).find(text)
    assert sorted(found) == [n for n, pattern in enumerate(MANY) if pattern.fullmatch(text)]


def test_many_patterns_mind_case_unless_told_otherwise():
    patterns = [Pattern("disk"), Pattern("DISK")]
    assert PatternSet(patterns).find("full disk") == [0]


def test_no_patterns_find_nothing():
    assert PatternSet([]).find("disk") == []


class OutOfMemory:
    """A set of RE2 that has not enough memory to search with, and finds nothing, as RE2 does then."""

    def Add(self, _):  # noqa: N802 # RE2's name
        pass

    def Compile(self):  # noqa: N802 # RE2's name
        pass

    def Match(self, _):  # noqa: N802 # RE2's name
        return None


def test_patterns_that_are_too_large_for_the_memory_are_refused(monkeypatch):
    patterns = [Pattern(f"{n}") for n in range(300)]
    with monkeypatch.context() as patched:
        patched.setattr("proxy.matchers._SET_MEMORY", 1 << 12)
        patched.setattr("proxy.matchers._SET_MEMORY_PER_INSTRUCTION", 0)
        with pytest.raises(ValueError, match="too large together"):
            PatternSet(patterns)
    monkeypatch.setattr("proxy.matchers.re2.Set.SearchSet", lambda _: OutOfMemory())
    with pytest.raises(ValueError, match="too large together"):
        PatternSet(patterns)


def test_a_search_that_runs_out_of_memory_is_done_one_by_one():
    found = PatternSet(MANY, ignore_case=True)
    found._set = OutOfMemory()
    assert found.find("full DISK") == [0, 3]
