"""A file of context is read with all its mistakes told at once, and within bounds."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from contexts import WHOLE, context

from proxy.classification import context as bounds
from proxy.classification.classification import Category, Confidence, Severity
from proxy.classification.context_reading import parse, read_context
from proxy.classification.templates import TEXT_LIMIT, Template
from proxy.errors import ConfigError

LIST = "want a list, each entry after a -"
SERVICE = "services:\n- name: a\n  about: b\n"
VERDICT = "{severity: info, category: other, confidence: low, summary: s}"
EXAMPLE = f"examples:\n- alert: {{labels: {{alertname: A}}}}\n  verdict: {VERDICT}\n"
PROMPT = "prompts:\n- matchers: [a=b]\n  file: db.jinja\n"
OF_VERDICT = "{severity: info, category: capacity, confidence: high, summary: Mails go out late.}"


def refused(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        context(text)
    return list(caught.value.problems)


def test_everything_is_read():
    whole = context(WHOLE)
    checkout, mails = whole.services
    assert (checkout.name, checkout.about, checkout.matchers, checkout.at) == (
        "checkout", "Takes the money; owned by team shop.", (), "c:3"
    )  # fmt: skip
    assert [str(matcher) for matcher in mails.matchers] == ['job="postfix"', 'env=~"prod|live"']
    (example,) = whole.examples
    assert example.alert.labels == {"alertname": "QueueGrows", "team": "shop", "instance": "10.1.2.3:25"}
    assert example.alert.annotations == {"summary": "The queue grows", "runbook_url": "https://wiki.internal/queue"}
    said = example.verdict
    assert (said.severity, said.category, said.confidence) == (Severity.INFO, Category.CAPACITY, Confidence.HIGH)
    assert (said.summary, said.recommendations) == ("Mails go out late.", ("Look at the workers.",))
    (prompt,) = whole.prompts
    assert ([str(m) for m in prompt.matchers], prompt.template.name, prompt.at) == (['team="db"'], "db.jinja", "c:20")


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        pytest.param("a: b: c", ["c:1: not YAML: mapping values are not allowed here"], id="two colons"),
        pytest.param("a: \x01", ["c:1: not YAML: a character or a nesting it does not allow"], id="control character"),
        pytest.param("[" * 2000, ["c:1: not YAML: a character or a nesting it does not allow"], id="endless nesting"),
        pytest.param(
            "a: " + "[" * 21 + "]" * 21, ["c:1: not YAML: a character or a nesting it does not allow"], id="deep"
        ),
        pytest.param("- a", ["c:1: want a mapping with services, examples, prompts"], id="a list"),
        pytest.param("text", ["c:1: want a mapping with services, examples, prompts"], id="a text"),
        pytest.param("service: []", ["c:1: unknown key service; did you mean services?"], id="misspelt"),
        pytest.param("x: 1", ["c:1: unknown key x; want one of services, examples, prompts"], id="unknown"),
        pytest.param("[a]: 1", ["c:1: want a word as a key, one of services, examples, prompts"], id="odd key"),
        pytest.param("services: []\nservices: []", ["c:2: services is given twice; keep one"], id="twice"),
        pytest.param("services: {}", [f"c:1: {LIST}"], id="services that are no list"),
        pytest.param(
            "services: [a]", ["c:1: want a mapping with name, about, matchers"], id="a service that is a text"
        ),
        pytest.param(
            "services:\n- about:\n",
            [
                "c:2: about is missing, want for example about: Takes the money.",
                "c:2: name is missing, want for example name: checkout",
            ],
            id="a service without anything",
        ),
        pytest.param(
            "services:\n- about: a\n- about: b",
            [f"c:{line}: name is missing, want for example name: checkout" for line in (2, 3)],
            id="two services without a name, which are not one twice",
        ),
        pytest.param(
            "services:\n- name: 1\n  about: [x]",
            ["c:2: want a text; put 1 in quotes if it is meant as one", "c:3: want a text"],
            id="a service of other types",
        ),
        pytest.param(
            'services: [{name: a, about: ""}]',
            ["c:1: want a text; put it in quotes if it is meant as one"],
            id="an empty text",
        ),
        pytest.param(
            SERVICE + "- name: a\n  about: c\n",
            ["c:4: a stands at c:2 already, for the same alerts; keep one"],
            id="same",
        ),
        pytest.param(
            SERVICE + "  matchers: [a]",
            [
                (
                    "c:4: bad matcher at 'a': want name=\"value\" with one of = != =~ "
                    "!~; quote values that hold quotes, commas or braces"
                )
            ],
            id="no matcher",
        ),
        pytest.param(SERVICE + "  matchers: x=y", [f"c:4: {LIST}"], id="matchers that are a text"),
        pytest.param(
            SERVICE + "  matchers: ['a=~\"(\"']",
            ["c:4: bad regular expression '(': missing ): ("],
            id="a bad regular expression",
        ),
        pytest.param(
            SERVICE + "  matchers:\n  - a=b\n  - pod=~x.*\n",
            ["c:6: pod is one of llm.object_labels: alerts that differ in it share a verdict; match another label"],
            id="a label of one object",
        ),
        pytest.param(
            "examples:\n- {}",
            [
                "c:2: alert is missing, want for example alert: {labels: {alertname: DiskFull}}",
                "c:2: verdict is missing, want for example verdict: {…}",
            ],
            id="an empty example",
        ),
        pytest.param(
            f"examples:\n- alert: {{}}\n  verdict: {VERDICT}",
            ["c:2: the alert has no labels, want for example labels: {alertname: DiskFull}"],
            id="an alert without labels",
        ),
        pytest.param(
            f"examples:\n- alert: x\n  verdict: {VERDICT}",
            ["c:2: want a mapping with labels, annotations"],
            id="an alert that is a text",
        ),
        pytest.param(
            EXAMPLE.replace("{alertname: A}", "{alertname: A, replica: 1, replica: b, alertname: C}"),
            ["c:2: alertname is given twice; keep one", "c:2: want a text; put 1 in quotes if it is meant as one"],
            id="labels that are no texts",
        ),
        pytest.param(
            EXAMPLE.replace("{alertname: A}", "A"),
            [
                "c:2: the alert has no labels, want for example labels: {alertname: DiskFull}",
                "c:2: want a mapping of names to texts",
            ],
            id="labels that are a text",
        ),
        pytest.param(
            EXAMPLE.replace("{labels", "{startsAt: x, labels"),
            [("c:2: unknown key startsAt; want one of labels, annotations")],
            id="another part of an alert",
        ),
        pytest.param(
            EXAMPLE.replace(VERDICT, "{}"),
            [
                "c:3: category is missing, want for example category: capacity",
                "c:3: confidence is missing, want for example confidence: high",
                "c:3: severity is missing, want for example severity: info",
                "c:3: summary is missing, want for example summary: Mails go out late.",
            ],
            id="an empty verdict",
        ),
        pytest.param(
            EXAMPLE.replace("info", "page"),
            [("c:3: unknown severity page, want one of critical, warning, info, noise")],
            id="a severity",
        ),
        pytest.param(
            EXAMPLE.replace("other", "disk"),
            [
                (
                    "c:3: unknown category disk, want one of availability, "
                    "capacity, performance, errors, network, storage, security, configuration, other"
                )
            ],
            id="a category",
        ),
        pytest.param(
            EXAMPLE.replace("low", "0.7"),
            ["c:3: want a text; put 0.7 in quotes if it is meant as one"],
            id="a confidence",
        ),
        pytest.param(
            EXAMPLE.replace("low,", "sure,"),
            ["c:3: unknown confidence sure, want one of low, medium, high"],
            id="an unknown confidence",
        ),
        pytest.param(
            EXAMPLE.replace("summary: s", "summary: 's', runbook: x"),
            [("c:3: unknown key runbook; want one of severity, category, confidence, summary, recommendations")],
            id="another member",
        ),
        pytest.param(
            EXAMPLE.replace("summary: s", "summary: See https://example.com/x"),
            ["c:3: summary with a link, an address or a tag, which are taken out of answers; leave it out"],
            id="a link",
        ),
        pytest.param(
            EXAMPLE.replace("summary: s", "summary: s, recommendations: x"),
            [f"c:3: {LIST}"],
            id="recommendations that are a text",
        ),
        pytest.param(
            "prompts:\n- {}",
            [
                "c:2: file is missing, want for example file: db.jinja",
                "c:2: matchers is missing, want for example matchers: ['team=\"db\"']",
            ],
            id="an empty prompt",
        ),
        pytest.param(
            "prompts:\n- matchers: []\n  file: db.jinja",
            [("c:2: no matchers; the template for all alerts is llm.prompt_file")],
            id="a prompt for all",
        ),
        pytest.param(PROMPT.replace("db.", "x."), ["c:3: cannot read x.jinja: no such file"], id="no such template"),
        pytest.param(
            "services:\n- &a {name: a, about: b}\n- *a\n",
            ["c:3: an alias; write out what it stands for"],
            id="an alias",
        ),
        pytest.param(
            "services: 1\nexamples: 2\nprompts: 3",
            [
                f"c:1: {LIST}",
                "c:2: want a list, each entry after a -",
                f"c:3: {LIST}",
            ],
            id="all at once",
        ),
    ],
)
def test_a_mistake_is_told_with_its_line(text: str, problems: list[str]):
    assert refused(text) == problems


@pytest.mark.parametrize("text", ["services:\n- [", "services:\n- 'a", "services:\n- @"])
def test_what_is_no_yaml_is_told_with_its_line(text: str):
    (problem,) = refused(text)
    assert problem.startswith(("c:2: not YAML: ", "c:3: not YAML: "))


def of(text: str, many: int) -> str:
    """Return a file with an entry many times, each of a name of its own."""
    key, _, entry = text.partition("\n")
    return key + "\n" + "".join(entry.replace("name: a", f"name: a{n}") for n in range(many))


def with_labels(length: int) -> str:
    return EXAMPLE.replace("{alertname: A}", f"{{a: {'x' * (length - 1)}}}")


def with_matchers(many: int) -> str:
    return SERVICE + f"  matchers: [{', '.join(f'l{n}=x' for n in range(many))}]\n"


@pytest.mark.parametrize(
    ("make", "limit", "problem"),
    [
        (lambda n: of(SERVICE, n), bounds.SERVICES, "c:2: {} services, want at most {}"),
        (lambda n: of(EXAMPLE, n), bounds.EXAMPLES, "c:2: {} examples, want at most {}"),
        (lambda n: of(PROMPT, n), bounds.PROMPTS, "c:2: {} prompts, want at most {}"),
        (
            lambda n: SERVICE.replace(": a", f": {'x' * n}"),
            bounds.NAME_LENGTH,
            "c:2: name of {} characters, want at most {}",
        ),
        (
            lambda n: SERVICE.replace(": b", f": {'x' * n}"),
            bounds.ABOUT_LENGTH,
            "c:3: text of {} characters, want at most {}",
        ),
        (with_labels, bounds.ALERT_LENGTH, "c:2: an alert of {} characters, want at most {}: keep what tells"),
        (
            with_matchers,
            bounds.MATCHERS,
            "c:4: {} matchers, want at most {}; a regular expression may stand for many values: (a|b)",
        ),
        (lambda n: EXAMPLE.replace(": s}", f": {'x' * n}}}"), 160, "c:3: summary of {} characters, want at most {}"),
        (
            lambda n: EXAMPLE.replace(": s}", f": s, recommendations: [{'x' * n}]}}"),
            120,
            "c:3: recommendation of {} characters, want at most {}",
        ),
        (
            lambda n: EXAMPLE.replace(": s}", f": s, recommendations: [{', '.join('x' * n)}]}}"),
            3,
            "c:3: {} recommendations, want at most {}",
        ),
    ],
    ids=["services", "examples", "prompts", "name", "about", "alert", "matchers", "summary", "recommendation", "steps"],
)
def test_a_bound_holds_and_is_told(make, limit: int, problem: str):
    context(make(limit))
    assert refused(make(limit + 1)) == [problem.format(limit + 1, limit)]


def test_regular_expressions_are_bounded_together():
    text = "services:\n" + "".join(
        f"- {{name: a{n}, about: b, matchers: ['x=~\"[a-z]{{400}}\"']}}\n" for n in range(20)
    )
    (problem,) = refused(text)
    assert problem.startswith("c:14: the regular expressions up to here have ")
    assert problem.endswith(" instructions, want at most 5000; fewer or shorter ones")
    context("services:\n" + text.splitlines()[1])
    assert refused(text + "- {name: a, about: b, matchers: [x=a]}\n- {name: a, about: b, matchers: [x=b]}\n") == [
        problem
    ]


def test_of_too_many_templates_none_is_read():
    read: list[str] = []

    def template(name: str) -> Template:
        read.append(name)
        return Template("", name)

    with pytest.raises(ConfigError):
        parse(of(PROMPT, bounds.PROMPTS + 50), "c", template)
    assert read == []
    parse(of(PROMPT, bounds.PROMPTS), "c", template)
    assert len(read) == bounds.PROMPTS


def test_what_is_said_of_a_service_is_one_line():
    [service] = context("services:\n- name: ' a  b'\n  about: |\n    c\n\n    d\n").services
    assert (service.name, service.about) == ("a b", "c d")


def test_of_too_many_labels_none_is_looked_into():
    labels = ", ".join("1: 2" for _ in range(bounds.ALERT_LENGTH + 1))
    assert refused(EXAMPLE.replace("alertname: A", labels)) == [
        f"c:2: {bounds.ALERT_LENGTH + 1} labels, want at most {bounds.ALERT_LENGTH}",
        "c:2: the alert has no labels, want for example labels: {alertname: DiskFull}",
    ]


def test_a_name_may_stand_for_different_services_of_different_alerts():
    text = SERVICE + "  matchers: [env=prod]\n- name: a\n  about: c\n  matchers: [env=test]\n- name: a\n  about: d\n"
    assert len(context(text).services) == 3


def test_a_long_text_of_the_file_is_not_repeated_whole():
    same = f"{{name: {'x' * 50_000}, about: b}}"
    for text in (
        "? " + "x" * 50_000 + "\n: 1",
        "services: [{name: [], about: " + "1" * 50_000 + "}]",
        f"services: [\n{same},\n{same}]",
    ):
        assert max(map(len, refused(text))) < 200


def test_other_object_labels_are_those_of_the_settings():
    text = SERVICE + "  matchers: [shard=x]\n"
    context(text)
    with pytest.raises(ConfigError, match="shard is one of"):
        context(text, per_object=["shard"])


def test_templates_are_beside_the_file(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "db.jinja").write_text("x")
    file = tmp_path / "there" / "context.yaml"
    file.write_text(PROMPT)
    assert read_context(file).prompts[0].template.text == "x"
    file.write_text(PROMPT.replace("db.", "../none."))
    with pytest.raises(ConfigError) as caught:
        read_context(file)
    assert caught.value.problems == (f"{file}:3: cannot read {file.parent}/../none.jinja: No such file or directory",)


def test_of_a_long_template_no_more_is_read_than_is_needed_to_refuse_it(tmp_path):
    (tmp_path / "db.jinja").write_text("x" * 10_000_000)
    (tmp_path / "context.yaml").write_text(PROMPT)
    assert len(read_context(tmp_path / "context.yaml").prompts[0].template.text) == TEXT_LIMIT + 1


BOMB = "a: &a [x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(20)
)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(BOMB, "{}:2: an alias; write out what it stands for", id="a bomb of aliases"),
        pytest.param(
            "services:\n" + "- {name: a, about: b}\n" * 500_000,
            "llm.context_file: {} has more than 200000 characters; keep what helps",
            id="ten megabytes",
        ),
        pytest.param(
            "[" * bounds.FILE_LENGTH, "{}:1: not YAML: a character or a nesting it does not allow", id="nesting"
        ),
        pytest.param(b"\xff\xfe", "llm.context_file: cannot read {}: it is not text", id="no text"),
        pytest.param(
            "!!python/object/apply:os.system ['true']",
            "{}:1: want a mapping with services, examples, prompts",
            id="a tag of Python's",
        ),
    ],
)
def test_a_hostile_file_is_refused(content: str | bytes, said: str, tmp_path):
    file = tmp_path / "context.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError) as caught:
        read_context(file)
    assert caught.value.problems == (said.format(file),)


@pytest.mark.parametrize("name", ["none.yaml", ".", "\0"])
def test_a_file_that_cannot_be_read_is_told_by_its_setting(name: str):
    with pytest.raises(ConfigError, match=r"^llm\.context_file: cannot read "):
        read_context(Path(name))


def test_without_libyaml_it_is_read_all_the_same(monkeypatch):
    monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    assert context(WHOLE).shape == context(WHOLE).shape != ()
    assert refused("services: [") == ["c:1: not YAML: expected the node content, but found '<stream end>'"]
