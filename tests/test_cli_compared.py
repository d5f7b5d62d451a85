"""What a comparison looks like: on a wide terminal, on a narrow one, and with words that a terminal would obey."""

from __future__ import annotations

import re

from configuring import REPOSITORY

from proxy.cli import compared

NAMES = ("openai/a", "openai/b")


def said(severity: str = "critical", times: int = 2, of: int = 2, failed: int = 0) -> dict[str, object]:
    return {
        "severity": severity, "category": "storage", "confidence": "high", "times": times, "of": of, "failed": failed,
    }  # fmt: skip


def a_model(name: str, **changes: object) -> dict[str, object]:
    share = {"classes": 2, "severity": 1.0, "category": 0.5, "both": 0.5}
    return {
        "name": name, "asked": 4, "verdicts": 4, "failed": [], "self_agreement": 0.75,
        "agreement": {"author": share | {"classes": 1}, "rules": share, "models": dict.fromkeys(NAMES, share)},
        "latency_seconds": {"p50": 0.5, "max": 1.25}, "requests": 4, "tokens": {"input": 1920, "output": 360},
        "cost_usd": 0.0075, "cost_per_1000_usd": 1.87,
    } | changes  # fmt: skip


REPORT = {
    "alerts": 3,
    "left_out": 1,
    "repeat": 2,
    "calls": {"planned": 8, "ended": 8},
    "interrupted": False,
    "models": [
        a_model("openai/a"),
        a_model(
            "openai/b", verdicts=1, failed=[{"reason": "timeout", "error": "no answer\x1b", "calls": 3}],
            cost_usd=None, cost_per_1000_usd=None, self_agreement=None, tokens={"input": None, "output": None},
        ),
    ],
    "classes": [
        {
            "alertname": "Disk\x1b", "labels": {"team": "db", "severity": "page"}, "alerts": 2,
            "author_severity": "critical", "agree": True,
            "verdicts": {"openai/a": said(), "openai/b": said(of=2, times=1)},
        },
        {
            "alertname": "Disk\x1b", "labels": {"team": "web", "severity": "page"}, "alerts": 1,
            "author_severity": None, "agree": None,
            "verdicts": {"openai/a": said("info"), "openai/b": said(of=0, failed=2)},
        },
    ],
}  # fmt: skip


def test_the_text_is_a_table_where_it_fits():
    lines = compared.text(REPORT, 200).splitlines()
    assert lines[0].split() == ["ALERT", "AUTHOR", "openai/a", "openai/b", "AGREE"]
    assert re.split("  +", lines[1]) == [
        'Disk\\x1b{team="db"} (2 alerts)', "critical",
        "critical/storage high, 2 of 2", "critical/storage high, 1 of 2", "yes",
    ]  # fmt: skip
    assert lines[2].split() == [
        'Disk\\x1b{team="web"}', "-", "info/storage", "high,", "2", "of", "2", "2", "failed", "-",
    ]  # fmt: skip
    assert " ".join(lines[5].split()) == "openai/a 4 0 75% 100% of 1 50% of 2 0.50s 1.25s 1,920 360 0.0075 1.87"
    assert lines[6].split()[-4:] == ["unknown"] * 4
    assert lines[8:] == [
        "openai/a and openai/b agree: severity 100%, category 50%, both 50% of 2 classes",
        "openai/b failed: timeout: no answer\\x1b (3 calls)",
        "left out: 1 alert that no model is asked about",
        "8 of 8 calls: 3 alerts, 2 classes, 2 times",
    ]


def test_on_a_narrow_terminal_it_is_blocks_of_lines_that_fit():
    text = compared.text(REPORT, 79)
    assert max(map(len, text.splitlines()[:-4])) <= 79
    assert 'Disk\\x1b{team="web"}\n  AUTHOR    -\n  openai/a  info/storage high, 2 of 2\n' in text
    assert "\nopenai/b\n  ASKED         4\n  FAILED        3\n" in text


def test_models_of_one_name_are_told_apart_by_their_addresses():
    names = ["openai/a@http://x", "openai/a"]
    models = [a_model(name, agreement=REPORT["models"][0]["agreement"]) for name in names]
    for model in models:
        model["agreement"] = model["agreement"] | {"models": {name: {"classes": 0} for name in names}}
    one = REPORT["classes"][0] | {"verdicts": {name: said() for name in names}}
    lines = compared.text(REPORT | {"models": models, "classes": [one]}, 200).splitlines()
    assert lines[0].split()[2:4] == names
    assert "agree:" not in "".join(lines), "there is no class on which both have a verdict"


def test_an_interrupted_comparison_says_so():
    text = compared.text(REPORT | {"interrupted": True, "calls": {"planned": 8, "ended": 3}}, 200)
    assert text.endswith("\nINTERRUPTED after 3 of 8 calls: 3 alerts, 2 classes, 2 times")


def test_each_figure_is_defined_in_the_reference():
    page = (REPOSITORY / "docs" / "reference" / "command-line.md").read_text()
    defined = page.partition("| figure | in JSON | is |")[2]
    heads = compared.text(REPORT, 200).splitlines()
    figures = re.split("  +", heads[4])[1:]
    assert len(figures) == 11
    assert [name for name in figures if name not in defined] == []


def test_a_name_without_an_end_does_not_make_the_table_as_wide():
    long = REPORT["classes"][0] | {"alertname": "A" * 5000}
    lines = compared.text(REPORT | {"classes": [long, REPORT["classes"][1]]}, 10_000).splitlines()
    assert max(map(len, lines)) < 400
    assert f"{'A' * (compared.NAME_LENGTH - 1)}… (2 alerts)" in lines[1]
