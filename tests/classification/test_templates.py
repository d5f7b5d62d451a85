"""What a template of one's own may do, and what it is told when it may not."""

from __future__ import annotations

import pytest

from proxy.alert import Alert
from proxy.classification.prompts import Prompts
from proxy.classification.templates import Template, TemplateError

HEAD = "{% block system %}\nClassify.\n{% endblock %}\n{% block user %}\n"
TAIL = "\n{% endblock %}\n"


def of(text: str) -> Prompts:
    return Prompts(Template(text, "p.jinja"))


def user(body: str, alert: Alert) -> str:
    return of(HEAD + body + TAIL).render(alert).messages[1]["content"]


def refused(text: str) -> TemplateError:
    with pytest.raises(TemplateError) as caught:
        of(text).check()
    return caught.value


def test_two_blocks_are_two_messages():
    messages = of(HEAD + "{{ labels.alertname }}" + TAIL).render(Alert({"alertname": "Disk"})).messages
    assert messages == [{"role": "system", "content": "Classify.\n"}, {"role": "user", "content": "Disk\n"}]


@pytest.mark.parametrize(
    ("body", "becomes"),
    [
        ("{{ labels.get('team', 'nobody') }}", "nobody\n"),
        ("{{ labels.team | default('nobody') }}", "nobody\n"),
        ("{% if labels.team is defined %}x{% endif %}{{ labels | length }}", "2\n"),
        ("{% for name, value in labels.items() %}\n{{ name }}={{ value }}\n{% endfor %}", "alertname=Disk\nip=IP_1\n"),
        ("{{ annotations.summary }}", r"\u003cb\u003e \"x\"\n" + "\n"),
        ("{{ labels.alertname.upper() }} {{ severities | first }} {{ summary_length * 2 }}", "DISK critical 320\n"),
        ("{% for i in range(3) %}{{ i }}{% endfor %}{# {{ nothing }} #}{{ labels.alertname }}", "012Disk\n"),
    ],
)
def test_it_can_say(body: str, becomes: str):
    assert user(body, Alert({"alertname": "Disk", "ip": "10.0.0.7"}, {"summary": '<b> "x"\n'})) == becomes


def test_the_masked_values_are_what_it_shows():
    alert = Alert({"alertname": "A", "password": "hunter2"}, {"summary": "token=hunter2 10.0.0.7"})
    assert user("{{ labels }}{{ annotations }}{{ alert }}", alert).count("hunter2") == 0


@pytest.mark.parametrize(
    ("body", "line", "why"),
    [
        ("\n{{ labels.team }}", 6, "team is undefined; not every alert has every label: want for example labels.get"),
        ("{{ alert }}\n{{ nothing }}", 6, "nothing is undefined"),
        ("{{ annotations.summary }}", 5, "summary is undefined"),
        ("{{ alert }}{% if %}", 5, "Expected an expression"),
        ("{{ alert }}\n{{ alert | centre }}", 6, "No filter named 'centre'"),
        ("{{ alert | center(1000000000) }}", 5, "No filter named 'center'"),
        ("{{ alert.ljust(1000000000) }}", 5, "nothing can be called here but range and"),
        ("{{ 'x' * 1000000000 }}{{ alert }}", 5, r"no \* here"),
        ("{{ alert * 1000000000 }}", 5, r"no \* here"),
        ("{{ 9 ** 9 ** 9 }}{{ alert }}", 5, r"no \*\* here"),
        ("{{ '%1000000000d' % 1 }}{{ alert }}", 5, "no % here"),
        ("{{ alert }}{% for i in range(1001) %}{% endfor %}", 5, "a range of more than 1000"),
        (
            "{{ alert }}{% for i in range(998) %}\n{% for j in range(998) %}{% endfor %}{% endfor %}",
            6,
            "more than 10000 turns of its loops",
        ),
        (
            "{% for i in range(99) %}{% for j in range(99) %}{{ alert }}{{ alert }}{% endfor %}{% endfor %}",
            4,
            "more than 500000 characters of text",
        ),
        ("{{ alert }}{% for i in [] recursive %}{% endfor %}", 5, "a loop has neither"),
        ("{{ alert }}{% for i in [1] if i %}{% endfor %}", 5, "a loop has neither"),
        ("{{ alert }}{% include '/etc/passwd' %}", 5, "macros and other files"),
        ("{{ alert }}{% import 'x' as y %}", 5, "macros and other files"),
        ("{{ alert }}{% macro a() %}{% endmacro %}", 5, "macros and other files"),
        ("{{ alert }}{% block more %}{% endblock %}", 1, "want two blocks"),
        ("{{ alert.__class__ }}", 5, "cannot be rendered: SecurityError"),
        ("{{ alert.__class__.__mro__ }}", 5, "cannot be rendered: SecurityError"),
        ("{{ cycler.__init__ }}{{ alert }}", 5, "cannot be rendered: SecurityError"),
        ("{{ lipsum }}{{ alert }}", 5, "lipsum is undefined"),
        ("{{ alert }}{{ 1 / 0 }}", 5, "cannot be rendered: ZeroDivisionError"),
        ("nothing of it", 4, "the block user shows nothing of the alert"),
    ],
)
def test_it_is_refused_with_its_line(body: str, line: int, why: str):
    found = refused(HEAD + body + TAIL)
    assert found.line == line
    with pytest.raises(TemplateError, match=f"^{why}"):
        raise found


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("", 1, "want two blocks"),
        ("{{ alert }}", 1, "stands in neither block"),
        ("{% set a = 1 %}" + HEAD + "{{ alert }}" + TAIL, 1, "stands in neither block"),
        (HEAD + "{{ alert }}" + TAIL + "\nbehind", 7, "stands in neither block"),
        ("{% block user %}{{ alert }}{% endblock %}", 1, "want two blocks"),
        (HEAD.replace("Classify", "{{ labels }}") + "{{ alert }}" + TAIL, 2, "labels is undefined"),
        (HEAD + "{{ alert }}", 5, "Unexpected end of template"),
        (HEAD + "x" * 70_000, 1, "is longer than 65536 characters"),
        (HEAD + "{{ alert" + " + alert" * 5000 + " }}" + TAIL, 1, "is nested too deeply"),
    ],
)  # fmt: skip
def test_a_whole_template_is_refused(text: str, line: int, why: str):
    found = refused(text)
    assert (found.line, str(found)[: len(why)]) == (line, why)


def test_the_turns_of_loops_are_counted_anew_for_each_prompt():
    prompts = of(HEAD + "{{ alert }}{% for i in range(900) %}{% for j in range(9) %}{% endfor %}{% endfor %}" + TAIL)
    for _ in range(3):
        prompts.check()
