"""`classify`, and what `check-config` says about a table of rules."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from configuring import REPOSITORY
from fakes import body, posted

from proxy import cli
from proxy.classification.rules.table import COLUMNS, MATCHERS_WEIGHT, PATTERNS_WEIGHT, RULES, SIZE

OWN = """\
version: 1
rules:
  - {name: payments, match: [team=pay], category: errors, summary: Payments fail., runbook: "https://wiki/pay"}
overrides:
  Known: {severity: info}
tests:
  - {labels: {alertname: X, team: pay}, category: errors, rule: payments}
"""
WRONG = OWN + "  - {labels: {alertname: X}, category: errors}\n"
SAID = "my-rules.yaml:8: the test wants category errors and gets other, from default; correct one of them\n"


@pytest.fixture(autouse=True)
def files(a_directory_of_its_own):
    Path("my-rules.yaml").write_text(OWN, encoding="utf-8")
    Path("config.yaml").write_text("rules: {file: my-rules.yaml}\n", encoding="utf-8")
    odd = {"labels": {"alertname": "Odd", "alertname ": None}}
    Path("alerts.json").write_bytes(
        body(posted("DiskFull", severity="page", team=""), posted("X\x1b", team="pay"), posted("Known"), odd)
    )


def test_it_names_the_rule_and_its_line(capsys):
    assert cli.main(["classify", "alerts.json", "--config.file=config.yaml"]) == 0
    first, own, known, odd = capsys.readouterr().out.split("\n\n")
    assert first.startswith("=== DiskFull, ")
    assert "\nseverity     critical, from the author (severity=page)\n" in first
    assert "\ncategory     storage, from rule filesystem-full (rules.yaml:" in first
    assert "\nfirst steps  Free some space now" in first
    assert "runbook" not in first
    assert own.startswith("=== X\\x1b, ")
    assert "\nseverity     warning, from nobody: no rule says anything\n" in own
    assert "\ncategory     errors, from rule payments (my-rules.yaml:3)\n" in own
    assert "\nsummary      Payments fail.\nrunbook      https://wiki/pay\n" in own
    assert "\nseverity     info, from an override (my-rules.yaml:5)\n" in known
    assert "\ncategory     other, from nobody: no rule says anything\n" in known
    assert odd.startswith("=== without a name, unknown\nno verdict: its labels: ")


def test_as_json_it_is_one_object_for_each_alert(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(Path("alerts.json").read_bytes())))
    assert cli.main(["classify", "-", "--rules.file=my-rules.yaml", "--rules", "-o", "json"]) == 0
    first, own, _, odd = json.loads(capsys.readouterr().out)
    assert first["rule"] == "filesystem-full"
    assert first["explained"]["severity"] == {"by": "author", "at": "severity=page"}
    assert (own["severity"], own["category"], own["source"]) == ("warning", "errors", "rules")
    assert own["explained"]["category"] == {"by": "payments", "at": "my-rules.yaml:3"}
    assert len(own["fingerprint"]) == 16
    assert list(odd) == ["fingerprint", "alertname", "why_nothing"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "alerts.json: cannot read the file: No such file or directory"),
        (b"{}", "alerts.json: want a JSON array of alerts, as Prometheus posts it to /api/v2/alerts"),
    ],
    ids=["missing", "no alerts"],
)
def test_alerts_that_cannot_be_read_end_it_with_exit_1(capsys, content, problem):
    Path("alerts.json").unlink()
    if content is not None:
        Path("alerts.json").write_bytes(content)
    assert cli.main(["classify", "alerts.json"]) == 1
    assert capsys.readouterr() == ("", problem + "\n")


def test_an_empty_array_has_no_verdicts(capsys):
    Path("alerts.json").write_bytes(b"[]")
    assert cli.main(["classify", "alerts.json"]) == 0
    assert capsys.readouterr().out == "no alerts\n"


@pytest.mark.parametrize("arguments", [["--rules", "my-rules.yaml"], ["config.yaml"]], ids=["a table", "settings"])
def test_a_table_is_checked(capsys, arguments):
    assert cli.main(["check-config", *arguments]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("my-rules.yaml: OK, 1 rules, 1 overrides, 1 tests and examples, hash ")
    assert out.endswith("config.yaml: OK\n") is (arguments == ["config.yaml"])
    assert err == ""
    Path("my-rules.yaml").write_text(WRONG, encoding="utf-8")
    assert cli.main(["check-config", *arguments]) == 1
    assert capsys.readouterr() == ("", SAID)


def test_settings_as_json_stay_json(capsys):
    assert cli.main(["check-config", "config.yaml", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["rules"] == {"file": "my-rules.yaml"}
    Path("other.yaml").write_text(WRONG, encoding="utf-8")
    assert cli.main(["check-config", "config.yaml", "-o", "json", "--rules", "other.yaml"]) == 1
    assert capsys.readouterr() == ("", SAID.replace("my-rules", "other"))


def test_what_cannot_be_read_is_said_with_its_line_and_nothing_starts(capsys):
    Path("my-rules.yaml").write_text("version: 1\nrules: [{name: a}]\n", encoding="utf-8")
    problems = [
        "my-rules.yaml:2: the rule needs match or pattern, or it would hold for every alert",
        "my-rules.yaml:2: the rule says nothing, want a severity, a category, a summary or another text",
    ]
    for arguments in (
        ["check-config", "config.yaml"],
        ["check-config", "--rules", "my-rules.yaml"],
        ["classify", "alerts.json", "--config.file=config.yaml"],
        ["serve", "--config.file=config.yaml"],
    ):
        assert cli.main(arguments) == 1
        assert capsys.readouterr().err.splitlines() == problems


def test_the_table_of_the_reference_passes_its_own_tests(capsys):
    page = (REPOSITORY / "docs" / "reference" / "rules.md").read_text(encoding="utf-8")
    first, more = re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    for table in (first, first + more):
        Path("my-rules.yaml").write_text(table, encoding="utf-8")
        assert cli.main(["check-config", "--rules", "my-rules.yaml"]) == 0
        assert "OK, 2 rules, 1 overrides, 3 tests and examples" in capsys.readouterr().out


def test_the_reference_names_the_limits():
    page = (REPOSITORY / "docs" / "reference" / "rules.md").read_text(encoding="utf-8")
    limits = dict(re.findall(r"^\| ([^|]*?) \| ([0-9,]+)[; a-z]*.*\|$", page.split("## Limits")[1], re.MULTILINE))
    assert limits["rules, overrides"] == f"{RULES:,}"
    assert limits["kinds of matchers: a label and a comparison"] == f"{COLUMNS}"
    assert limits["instructions of its regular expressions together"] == f"{SIZE:,}"
    assert limits["weight of its patterns together"] == f"{PATTERNS_WEIGHT:,}"
    assert limits["weight of the regular expressions on labels together"] == f"{MATCHERS_WEIGHT:,}"


def test_nothing_to_check_is_wrong_usage(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["check-config"])
    assert caught.value.code == 2
    assert "want the FILE of settings, or --rules FILE" in capsys.readouterr().err
