"""An alert's text stays data, whatever it says and wherever it stands."""

from __future__ import annotations

import json

import pytest
from injections import INJECTIONS, UNSEEN

from proxy.alert import Alert
from proxy.classification.masking import Masking
from proxy.classification.prompts import ANNOTATIONS, Prompts
from proxy.classification.templates import Template

LOOPED = """\
{% block system %}Classify.{% endblock %}
{% block user %}
{% for name, value in labels.items() %}<label name="{{ name }}">{{ value }}</label>
{% endfor %}
{% for name, value in annotations.items() %}<annotation name="{{ name }}">{{ value }}</annotation>
{% endfor %}
{% endblock %}
"""
OPEN = Prompts(masking=Masking(enabled=False))
HARMLESS = Prompts().render(Alert({"alertname": "Harmless"}))


def everywhere(text: str) -> Alert:
    """An alert that says it in every field and in the name of a label."""
    labels = {"alertname": text, "severity": text, "team": text, text: text}
    return Alert(labels, dict.fromkeys(ANNOTATIONS, text))


def fence(user: str) -> str:
    before, after = "The alert, as JSON between two tags:\n<alert>\n", "\n</alert>\n"
    assert user.startswith(before)
    assert user.endswith(after)
    return user[len(before) : -len(after)]


def test_there_are_enough_of_them():
    assert len(set(INJECTIONS)) == len(INJECTIONS) >= 50


@pytest.mark.parametrize("text", INJECTIONS, ids=ascii)
def test_it_stays_in_the_fence_and_is_read_as_it_was_written(text: str):
    alert = everywhere(text)
    inside = fence(OPEN.render(alert).messages[1]["content"])
    assert not set("<>&`") & set(inside)
    assert inside.replace("\n", "").isprintable()
    assert json.loads(inside) == {"labels": dict(alert.labels), "annotations": dict(alert.annotations)}


@pytest.mark.parametrize("text", INJECTIONS, ids=ascii)
def test_masked_it_stays_in_the_fence_too(text: str):
    told, shown = Prompts().render(everywhere(text)).messages
    assert told == HARMLESS.messages[0]
    assert set(json.loads(fence(shown["content"]))) == {"labels", "annotations"}
    assert (told["role"], shown["role"]) == ("system", "user")


@pytest.mark.parametrize("text", INJECTIONS, ids=ascii)
def test_in_a_template_of_ones_own_it_stays_in_its_line_and_its_tag(text: str):
    user = Prompts(Template(LOOPED, "p.jinja")).render(everywhere(text)).messages[1]["content"]
    lines = [line for line in user.split("\n") if line]
    assert len(lines) == 4 + len(ANNOTATIONS)
    for line in lines:
        assert (line.count("<"), line.count(">")) == (2, 2)
        assert line.endswith(("</label>", "</annotation>"))


def test_nothing_in_an_alert_is_taken_for_the_template():
    user = Prompts().render(everywhere("{{ 7 * 191 }} {% raw %}")).messages[1]["content"]
    assert "1337" not in user
    assert "{{ 7 * 191 }} {% raw %}" in user


@pytest.mark.parametrize("text", UNSEEN, ids=ascii)
def test_what_cannot_be_seen_is_shown_by_its_number(text: str):
    hidden = [c for c in text if not c.isprintable() or c in "\u3164\u115f\uffa0\ufe0f\U000e0101\U000e0102"]
    user = OPEN.render(everywhere(text)).messages[1]["content"]
    assert not set(hidden) & set(user.replace("\n", ""))


def test_a_forged_placeholder_brings_no_value_back():
    alert = Alert({"alertname": "A", "cluster": "10.1.2.3", "note": "IP_1"}, {"summary": "IP_2 or SECRET_1"})
    prompt = Prompts().render(alert)
    assert '"cluster": "IP_3"' in prompt.messages[1]["content"]
    assert prompt.masked.restore("IP_3, IP_2, IP_1, SECRET_1") == "10.1.2.3, an IP address, IP_1, [masked]"
