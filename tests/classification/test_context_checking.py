"""What is odd in a context that can be read is told, and does not keep the proxy from starting."""

from __future__ import annotations

import pytest
from contexts import WHOLE, context, prompts

from proxy.classification.masking import Masking
from proxy.classification.prompts import Prompts
from proxy.classification.templates import Template

EXAMPLE = """
  - alert: {labels: {alertname: E%d}}
    verdict: {severity: info, category: other, confidence: low, summary: Number %d.}
"""


def never(at: str, what: str, shown: int, before: str) -> str:
    return (
        f"{at}: this {what} is never shown: {before} match whenever it does, and at most {shown} are shown; "
        "move it up, or take it out"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param(WHOLE, [], id="nothing"),
        pytest.param(
            WHOLE + "  - matchers: [env=a, 'team=\"db\"']\n    file: db.jinja\n",
            [never("c:22", "prompt", 1, "c:20")],
            id="a prompt",
        ),
        pytest.param(WHOLE + "  - matchers: ['team=~\"d.*\"']\n    file: db.jinja\n", [], id="another prompt"),
        pytest.param(
            "examples:" + "".join(EXAMPLE % (n, n) for n in range(5)),
            [never("c:14", "example", 4, "c:2, c:5, c:8, c:11")],
            id="an example",
        ),
        pytest.param(
            "services:\n" + "".join(f"- {{name: s{n}, about: x, matchers: [a=b]}}\n" for n in range(6)),
            [never("c:7", "service", 5, "c:2, c:3, c:4, c:5, c:6")],
            id="a service",
        ),
        pytest.param("services:\n" + "".join(f"- {{name: s{n}, about: x}}\n" for n in range(9)), [], id="by name"),
        pytest.param(
            "services:\n- {name: a, about: 'Ask with password=hunter22 at night.'}\n",
            ["c:2: it looks as if it held a secret, and leaves as it is written; take it out"],
            id="a secret",
        ),
        pytest.param(
            ("examples:" + EXAMPLE % (0, 0)).replace("Number 0.", "'Use --token ghp_0123456789abcdefghij'"),
            ["c:2: it looks as if it held a secret, and leaves as it is written; take it out"],
            id="a secret in a verdict",
        ),
    ],
)
def test_what_is_odd_is_told(text: str, said: list[str]):
    assert prompts(text).doubts() == said


def test_a_template_that_shows_no_services_is_told():
    mine = "{% block system %}{% endblock %}{% block user %}{{ alert }}{% endblock %}"
    said = "m:1: it shows no services; want {% for service in services %} in its block user"
    assert prompts(WHOLE, template=Template(mine, "m")).doubts() == [said]
    assert prompts(WHOLE, {"db.jinja": mine}).doubts() == [said.replace("m:", "db.jinja:")]
    assert Prompts(Template(mine, "m"), context=context("examples: []")).doubts() == []


def test_what_a_pattern_of_the_operators_own_finds_is_a_secret_too():
    text = "services: [{name: a, about: Of cust-1234.}]"
    assert prompts(text).doubts() == []
    assert len(prompts(text, masking=Masking(patterns=["cust-[0-9]+"])).doubts()) == 1
