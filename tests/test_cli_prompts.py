"""`render-prompt`, and what the commands say about a template that cannot be used."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from configuring import REPOSITORY
from fakes import an_alert, body, posted

from proxy import cli
from proxy.classification.prompts import Prompts
from proxy.errors import ConfigError

GOOD = (
    "{% block system %}Classify.{% endblock %}\n"
    "{% block user %}{{ labels.alertname }} {{ labels.items() | length }}{% endblock %}"
)
UNDEFINED = 'team is undefined; not every alert has every label: want for example labels.get("team", "none")'
BAD = "{% block system %}Classify.{% endblock %}\n{% block user %}{{ labels.team }}{% endblock %}"

pytestmark = pytest.mark.usefixtures("a_directory_of_its_own")


@pytest.fixture
def alerts() -> str:
    Path("alerts.json").write_bytes(body(posted(instance="10.0.0.7:9100", password="hunter2"), posted("Disk")))
    return "alerts.json"


def test_it_shows_what_leaves_under_a_heading_for_each_message(alerts, capsys):
    assert cli.main(["render-prompt", alerts]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith("=== alert 1 of 2: HighLatency, ")
    version = Prompts().version
    assert f"\nprompt {version}, " in out
    assert ", masked: 1 IP, 1 SECRET\n\n--- system\nYou classify alerts" in out
    assert "\n--- user\nThe alert, as JSON between two tags:\n<alert>\n" in out
    assert '"instance": "IP_1:9100"' in out
    assert "\n\n=== alert 2 of 2: Disk, " in out
    assert ", masked: nothing\n" in out
    assert "hunter2" not in out


def test_as_json_it_is_what_the_worker_sends(alerts, capsys):
    assert cli.main(["render-prompt", alerts, "-o", "json"]) == 0
    found, _ = json.loads(capsys.readouterr().out)
    alert = an_alert(instance="10.0.0.7:9100", password="hunter2")
    prompt = Prompts().render(SimpleNamespace(labels=alert.labels, annotations={"summary": "HighLatency fires"}))
    assert found["messages"] == prompt.messages
    assert found["prompt_version"] == Prompts().version
    assert found["characters"] == sum(len(message["content"]) for message in prompt.messages)
    assert 0.2 < found["tokens"] / found["characters"] < 0.3
    assert found["masked"] == {"IP": 1, "SECRET": 1}
    assert found["alertname"] == "HighLatency"
    assert len(found["fingerprint"]) == 16


def test_other_scripts_have_more_tokens(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(body(posted(), posted(note="警" * 100)))))
    assert cli.main(["render-prompt", "-", "-o", "json"]) == 0
    one, other = json.loads(capsys.readouterr().out)
    assert 100 <= other["tokens"] - one["tokens"] <= 110


def test_it_reads_the_settings_of_the_proxy(alerts, capsys, monkeypatch):
    Path("config.yaml").write_text("llm:\n  prompt_file: own.jinja\n  labels: [alertname]\n", encoding="utf-8")
    Path("own.jinja").write_text(GOOD, encoding="utf-8")
    assert cli.main(["render-prompt", alerts, "--config.file=config.yaml"]) == 0
    assert "\n--- user\nHighLatency 1\n" in capsys.readouterr().out
    monkeypatch.setenv("LLM_PROMPT_FILE", "own.jinja")
    assert cli.main(["render-prompt", alerts]) == 0
    assert "\n--- user\nHighLatency 3\n" in capsys.readouterr().out
    assert cli.main(["render-prompt", alerts, "--llm.labels=alertname", "--llm.labels=password"]) == 0
    assert "\n--- user\nHighLatency 2\n" in capsys.readouterr().out
    assert cli.main(["render-prompt", alerts, "--llm.redact.enabled=maybe"]) == 1


def test_an_alert_that_the_model_is_never_asked_about_is_said_to_be_one(capsys):
    Path("odd.json").write_bytes(body({"labels": {"alertname": None}}, {**posted(), "annotations": None}))
    assert cli.main(["render-prompt", "odd.json"]) == 0
    first, second = capsys.readouterr().out.split("\n\n")
    assert first == "=== alert 1 of 2: without a name, unknown\nnothing leaves: its labels: not an object of strings"
    assert second.endswith("\nnothing leaves: it is written as Prometheus would not write it\n")


def test_no_alerts_are_no_prompts(capsys):
    Path("none.json").write_text("[]", encoding="utf-8")
    assert cli.main(["render-prompt", "none.json"]) == 0
    assert capsys.readouterr().out == "no alerts, nothing leaves\n"


def test_a_terminal_gets_nothing_to_obey(capsys):
    Path("odd.json").write_bytes(body(posted("A\x1b[31m\u202e")))
    Path("own.jinja").write_text(GOOD.replace("Classify", "\x1b]0;Classify\x07"), encoding="utf-8")
    assert cli.main(["render-prompt", "odd.json", "--llm.prompt-file=own.jinja"]) == 0
    assert capsys.readouterr().out.replace("\n", "").isprintable()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "alerts.json: cannot read the file: No such file or directory"),
        (b'{"labels":{}}', "alerts.json: want a JSON array of alerts, as Prometheus posts it to /api/v2/alerts"),
    ],
    ids=["no file", "no array"],
)
def test_what_it_cannot_read_is_exit_1(content, said, capsys):
    if content is not None:
        Path("alerts.json").write_bytes(content)
    assert cli.main(["render-prompt", "alerts.json"]) == 1
    assert capsys.readouterr().err == f"{said}\n"


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["a", "-o", "yaml"], ["a", "--web.listen-address=:1"]])
def test_wrong_usage_is_exit_2(arguments, capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(["render-prompt", *arguments])
    assert left.value.code == 2
    capsys.readouterr()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (BAD, f"own.jinja:2: {UNDEFINED}"),
        (None, "llm.prompt_file: cannot read own.jinja: No such file or directory"),
        ("\udcff", "llm.prompt_file: cannot read own.jinja: it is not text"),
    ],
    ids=["a mistake", "no file", "no text"],
)
def test_a_template_that_cannot_be_used_is_a_mistake_of_the_settings(alerts, content, said, capsys):
    Path("config.yaml").write_text("llm:\n  prompt_file: own.jinja\n", encoding="utf-8")
    if content is not None:
        Path("own.jinja").write_bytes(content.encode(errors="surrogateescape"))
    for command in (
        ["check-config", "config.yaml"],
        ["render-prompt", alerts, "--config.file=config.yaml"],
        ["serve", "--config.file=config.yaml"],
    ):
        assert cli.main(command) == 1
        assert capsys.readouterr().err == f"{said}\n"


def test_a_good_template_is_fine(capsys):
    Path("config.yaml").write_text("llm:\n  prompt_file: own.jinja\n", encoding="utf-8")
    Path("own.jinja").write_text(GOOD, encoding="utf-8")
    assert cli.main(["check-config", "config.yaml"]) == 0
    assert capsys.readouterr().out == "config.yaml: OK\n"


def test_the_template_that_the_reference_shows_is_fine(alerts, capsys):
    page = (REPOSITORY / "docs" / "reference" / "prompt.md").read_text(encoding="utf-8")
    (shown,) = re.findall("```jinja\n(.*?)```", page, re.DOTALL)
    Path("own.jinja").write_text(shown, encoding="utf-8")
    assert cli.main(["render-prompt", alerts, "--llm.prompt-file=own.jinja"]) == 0
    assert "\n--- user\n<alert>\n{\n" in capsys.readouterr().out
    assert UNDEFINED in page


def test_a_reload_refuses_a_template_that_cannot_be_used():
    Path("own.jinja").write_text(BAD, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"^own\.jinja:2: team is undefined"):
        cli._load(None, {"llm.prompt_file": ["own.jinja"]})


def test_it_works_as_a_process_of_its_own_without_a_key(alerts):
    environ = {name: value for name, value in os.environ.items() if not name.startswith("LLM_")}
    done = subprocess.run(
        [sys.executable, "-m", "proxy", "render-prompt", "-"],
        input=Path(alerts).read_bytes(),
        capture_output=True,
        env=environ | {"PYTHONPATH": str(Path(cli.__file__).parents[2]), "PYTHONIOENCODING": "ascii"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"=== alert 1 of 2: HighLatency")
