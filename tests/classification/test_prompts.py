from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.alert import Alert
from proxy.classification import prompts
from proxy.classification.classification import Category, Classification, Confidence, Severity, Source
from proxy.classification.masking import Masking
from proxy.classification.prompts import Prompt, Prompts
from proxy.classification.templates import Template
from proxy.errors import ClassifierUnusable

PLAIN = st.text(st.characters(exclude_categories=["Cs"]), max_size=prompts.VALUE_LENGTH)
UNMASKED = Prompts(masking=Masking(enabled=False))
SHIPPED = Prompts()
BRITTLE = "{% block system %}S{% endblock %}{% block user %}{{ alert }}{% if labels.alertname == 'X' %}\n{{ labels.y }}"


def fenced(prompt: Prompt) -> str:
    """Return what stands between the tags."""
    user = prompt.messages[1]["content"]
    return user.removeprefix("The alert, as JSON between two tags:\n<alert>\n").removesuffix("\n</alert>\n")


def shown(alert: Alert, by: Prompts = SHIPPED) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = json.loads(fenced(by.render(alert)))
    return found


RICH = Alert(
    {"alertname": "DiskFull", "team": "db"},
    {
        "summary": "s",
        "description": "d",
        "message": "m",
        "title": "t",
        "runbook_url": "https://wiki.internal/DiskFull",
        "dashboard": "https://grafana.internal/d/1",
        "value": "1",
    },
)


def test_only_labels_and_four_annotations_leave():
    assert shown(RICH) == {
        "labels": {"alertname": "DiskFull", "team": "db"},
        "annotations": {"summary": "s", "description": "d", "message": "m", "title": "t"},
    }
    assert "internal" not in json.dumps(SHIPPED.render(RICH).messages)


def test_what_leaves_can_be_chosen_by_name():
    chosen = Prompts(labels=["team", "absent"], annotations=["value", "summary"])
    assert shown(RICH, chosen) == {"labels": {"team": "db"}, "annotations": {"value": "1", "summary": "s"}}
    assert shown(RICH, Prompts(labels=[], annotations=[])) == {"labels": {}, "annotations": {}}
    assert shown(RICH, Prompts(annotations=["*"]))["annotations"].keys() == RICH.annotations.keys()


@given(st.dictionaries(st.text("abc", min_size=1), PLAIN, max_size=5), PLAIN)
def test_whatever_an_alert_says_stays_between_the_tags(labels: dict[str, str], summary: str):
    alert = Alert(labels, {"summary": summary})
    text = fenced(UNMASKED.render(alert))
    assert not set("<>&`\u2028\u2029") & set(text)
    assert json.loads(text) == {"labels": labels, "annotations": {"summary": summary}}


def test_values_are_cut():
    alert = Alert({"alertname": "x" * 10_000, "n" * 1000: "v"}, {"description": "y" * 10_000})
    seen = shown(alert)
    assert len(seen["labels"]["alertname"]) == 500
    assert len(seen["annotations"]["description"]) == 500
    assert max(map(len, seen["labels"])) == 128


def test_of_too_many_labels_the_telling_ones_stay():
    labels = {f"a{i:03}": "v" for i in range(200)} | {"severity": "critical", "alertname": "Zed"}
    kept = list(shown(Alert(labels))["labels"])
    assert kept[:3] == ["alertname", "severity", "a000"]
    assert len(kept) == 64


def test_half_a_surrogate_pair_does_not_fail_at_the_provider():
    chat = SHIPPED.render(Alert({"alertname": "a"}, {"summary": "\ud800"})).messages
    json.dumps(chat, ensure_ascii=False).encode()


def test_the_longest_alert_there_can_be_is_rendered():
    worst = "\U000e0001" * 600  # each of them twelve characters, shown by its number
    labels = {f"{number}{worst}": worst for number in range(100)}
    Prompts(annotations=["*"]).render(Alert({"alertname": "a"}, {"summary": worst}))
    Prompts(annotations=["*"]).render(Alert(labels, labels))
    assert len(SHIPPED.render(Alert({**{f"{n}": "<" * 600 for n in range(100)}})).messages[1]["content"]) < 500_000


def test_the_instructions_are_the_same_for_every_alert():
    one, other = SHIPPED.render(Alert({"alertname": "a"})).messages, SHIPPED.render(Alert({"alertname": "b"})).messages
    assert one[0] == other[0]
    assert [m["role"] for m in one] == ["system", "user"]


@pytest.mark.parametrize("word", [*Severity, *Category, *Confidence, "summary", "recommendations"])
def test_the_instructions_name_every_choice(word: str):
    assert word in SHIPPED.render(Alert({})).messages[0]["content"]


def test_the_instructions_hold_no_example_for_small_models_to_copy():
    assert "{" not in SHIPPED.render(Alert({})).messages[0]["content"]


def test_a_label_that_is_named_after_a_secret_is_masked_whole():
    labels = {
        "alertname": "A",
        "db_password": "correct horse",
        "apiKey": "abc",
        "keyboard": "qwerty",
    }
    assert shown(Alert(labels))["labels"] == {
        "alertname": "A",
        "db_password": "SECRET_2",
        "apiKey": "SECRET_1",
        "keyboard": "qwerty",
    }


def test_a_name_is_masked_too():
    assert list(shown(Alert({"ada@example.com": "x"}))["labels"]) == ["EMAIL_1"]


def verdict(summary: str, *steps: str) -> Classification:
    return Classification(
        Severity.INFO, Category.OTHER, Confidence.LOW, Source.LLM, summary=summary, recommendations=steps, model="m"
    )


def test_a_verdict_gets_back_only_what_its_whole_class_shares():
    alert = Alert(
        {"alertname": "A", "cluster": "10.1.1.1", "instance": "10.0.0.7:9100", "token": "10.2.2.2"},
        {"summary": "10.3.3.3 of ada@example.com"},
    )
    prompt = SHIPPED.render(alert)
    assert shown(alert)["labels"] == {
        "alertname": "A", "cluster": "IP_1", "instance": "IP_2:9100", "token": "SECRET_1"
    }  # fmt: skip
    assert prompt.restored(verdict("IP_1 lost IP_2:9100", "Ask EMAIL_1 for SECRET_1", "See IP_3")) == verdict(
        "10.1.1.1 lost an IP address", "Ask an e-mail address for [masked]", "See an IP address"
    )


LETTERS = "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789!#$^*+-_~"
CANARY = st.text(st.sampled_from(LETTERS), min_size=12, max_size=40)
CONTEXTS = st.sampled_from([
    "password={}", 'x {{"token":"{}"}}', "Authorization: Bearer {}", "https://ada:{}@db.example/x",
    "run --api-key {} now",
    "<secret>{}</secret>", "client_secret: {}", 'passwd="{}"',
    "postgres://{}:x@db", r"{{\"apiKey\":\"{}\"}}",
])  # fmt: skip
AROUND = st.text(st.sampled_from("abc ABC 0.1 :/@é<>\"'\n{}"), max_size=20)


@given(CANARY, CONTEXTS, AROUND, AROUND, st.integers(0, 520), st.sampled_from(["label", "annotation", "both", "name"]))
@settings(max_examples=300, deadline=None)
def test_no_canary_leaves_or_comes_back(canary: str, context: str, before: str, after: str, offset: int, where: str):
    secret = context.format(canary)
    text = f"{before} {'a ' * (offset // 2)}{secret} {after}"
    labels, annotations = {"alertname": "A", "severity": "info"}, {"summary": "fires"}
    if where in ("label", "both"):
        labels["note"] = text
    if where in ("annotation", "both"):
        annotations["description"] = text
    if where == "both":
        annotations["message"] = f"seen: {canary}"  # bare, and known from elsewhere
    if where == "name":
        labels[text] = "x"
    prompt = SHIPPED.render(Alert(labels, annotations))
    leaves = json.dumps(json.loads(fenced(prompt)), ensure_ascii=False)
    for piece in (canary, canary[:8], canary[-8:]):
        assert piece not in leaves
        assert piece not in prompt.masked.restore(" ".join(re.findall("[A-Z]+_[0-9]+", leaves)))


def test_the_same_alert_makes_the_same_prompt():
    alert = Alert({"b": "10.0.0.7", "a": "10.0.0.8"}, {"title": "ada@example.com", "summary": "10.0.0.8"})
    other = Alert(dict(reversed(alert.labels.items())), dict(reversed(alert.annotations.items())))
    assert SHIPPED.render(alert).messages == Prompts().render(other).messages


def test_the_version_names_all_that_shapes_a_prompt():
    mine = Template("{% block system %}{% endblock %}{% block user %}{{ alert }}{% endblock %}", "p")
    versions = [
        each.version
        for each in (
            Prompts(), Prompts(mine), Prompts(masking=Masking(hosts=True)), Prompts(labels=["a"]),
            Prompts(annotations=[]),
        )
    ]  # fmt: skip
    assert len(set(versions)) == len(versions)
    assert Prompts().version == versions[0]
    assert all(re.fullmatch("[0-9a-f]{12}", version) for version in versions)


def test_a_template_that_fails_at_one_alert_says_where_and_not_what_the_alert_says():
    brittle = Prompts(Template(BRITTLE + "{% endif %}{% endblock %}", "p.jinja"))
    brittle.check()
    with pytest.raises(
        ClassifierUnusable, match=r"^the template of the prompt, line 2 of p.jinja: y is undefined"
    ) as failed:
        brittle.render(Alert({"alertname": "X", "secret": "hunter2"}))
    assert "hunter2" not in str(failed.value)


def test_jinja_is_imported_only_where_a_prompt_is_made():
    program = "import sys, proxy.app; from proxy.classification.prompts import Prompts; Prompts().version; "
    done = subprocess.run([sys.executable, "-c", program + "sys.exit('jinja2' in sys.modules)"], check=False)
    assert done.returncode == 0
