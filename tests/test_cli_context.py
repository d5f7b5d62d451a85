"""`llm.context_file` on the command line: what leaves, and what is said about a file that cannot be used."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from configuring import REPOSITORY
from contexts import DB, WHOLE
from fakes import body, posted

from proxy import cli


@pytest.fixture
def alerts(there: None) -> str:
    Path("alerts.json").write_bytes(body(posted(team="shop", service="checkout")))
    return "alerts.json"


@pytest.fixture(autouse=True)
def there(a_directory_of_its_own: None) -> None:
    Path("there").mkdir()
    Path("there/context.yaml").write_text(WHOLE)
    Path("there/db.jinja").write_text(DB)
    Path("config.yaml").write_text("llm:\n  context_file: there/context.yaml\n")


def test_render_prompt_shows_examples_and_services(alerts, capsys, monkeypatch):
    shown = []
    for given in (["--config.file=config.yaml"], ["--llm.context-file=there/context.yaml"]):
        assert cli.main(["render-prompt", alerts, *given]) == 0
        shown.append(capsys.readouterr().out)
    monkeypatch.setenv("LLM_CONTEXT_FILE", "there/context.yaml")
    assert cli.main(["render-prompt", alerts]) == 0
    assert capsys.readouterr().out == shown[0] == shown[1]
    parts = [
        "--- system\n",
        "--- user\nThe alert",
        '--- assistant\n{"severity"',
        "--- user\nWhat its owners say",
        "<services>\ncheckout: Takes",
    ]
    places = [shown[0].index(part) for part in parts]
    assert places == sorted(places)


def test_as_json_all_messages_are_counted(alerts, capsys):
    assert cli.main(["render-prompt", alerts, "--config.file=config.yaml", "-o", "json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert len(found["messages"]) == 4
    assert found["characters"] == sum(len(message["content"]) for message in found["messages"])


def test_a_good_file_is_fine(capsys):
    assert cli.main(["check-config", "config.yaml"]) == 0
    assert capsys.readouterr() == ("config.yaml: OK\n", "")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        pytest.param(
            {"context.yaml": WHOLE.replace("severity: info", "severity: page").replace("job=", "pod=")},
            [
                (
                    "there/context.yaml:7: pod is one of llm.object_labels: alerts that differ in it share a verdict; "
                    "match another label"
                ),
                "there/context.yaml:14: unknown severity page, want one of critical, warning, info, noise",
            ],
            id="the file",
        ),
        pytest.param(
            {"db.jinja": "{% block system %}S{% endblock %}\n{% block user %}{{ alert }}{{ service }}{% endblock %}"},
            [
                (
                    "there/db.jinja:2: service is undefined; not every alert has every label: want for example "
                    'labels.get("team", "none")'
                )
            ],
            id="a template",
        ),
        pytest.param(
            {"db.jinja": None},
            ["there/context.yaml:21: cannot read there/db.jinja: No such file or directory"],
            id="no template",
        ),
        pytest.param(
            {"context.yaml": None},
            ["llm.context_file: cannot read there/context.yaml: No such file or directory"],
            id="no file",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_a_mistake_of_the_settings(alerts, changed, said, capsys):
    for name, text in changed.items():
        path = Path("there", name)
        if text is None:
            path.unlink()
        else:
            path.write_text(text)
    for command in (
        ["check-config", "config.yaml"],
        ["render-prompt", alerts, "--config.file=config.yaml"],
        ["serve", "--config.file=config.yaml"],
    ):
        assert cli.main(command) == 1
        assert capsys.readouterr().err.splitlines() == said


def test_object_labels_of_the_settings_are_meant(capsys):
    Path("config.yaml").write_text("llm:\n  context_file: there/context.yaml\n  object_labels: [env]\n")
    assert cli.main(["check-config", "config.yaml"]) == 1
    assert capsys.readouterr().err.startswith("there/context.yaml:7: env is one of llm.object_labels")


def test_what_is_odd_is_a_warning(capsys):
    Path("there/context.yaml").write_text(WHOLE.replace("Takes the money", "Log in with password=hunter22"))
    assert cli.main(["check-config", "config.yaml"]) == 0
    out, err = capsys.readouterr()
    assert out == "config.yaml: OK\n"
    assert err == (
        "warning: there/context.yaml:3: it looks as if it held a secret, and leaves as it is written; take it out\n"
    )


def test_the_start_and_a_reload_hear_of_it_too():
    Path("there/context.yaml").write_text(WHOLE.replace("Takes the money", "Log in with password=hunter22"))
    loaded = cli._load(Path("config.yaml"))
    assert [warning[:22] for warning in loaded.warnings] == ["there/context.yaml:3: "]


def test_the_file_that_the_reference_shows_is_fine(alerts, capsys):
    page = (REPOSITORY / "docs" / "reference" / "prompt.md").read_text(encoding="utf-8")
    (shown,) = (text for text in re.findall("```yaml\n(.*?)```", page, re.DOTALL) if "services:" in text)
    Path("there/context.yaml").write_text(shown)
    Path("there/database.jinja").write_text(DB)
    assert cli.main(["check-config", "config.yaml"]) == 0
    assert capsys.readouterr() == ("config.yaml: OK\n", "")
