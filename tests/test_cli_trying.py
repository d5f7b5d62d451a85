"""`try-classifier`: what an author sees."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from configuring import REPOSITORY
from fakes import body, posted
from own_classifiers import LITELLMS, POINTS, ROGUE, SECRET_WORDS, install

from proxy import cli

pytestmark = pytest.mark.usefixtures("a_directory_of_its_own")


def tries(*names: str, model: str = "rogue", also: Sequence[object] = (), **environ: str) -> tuple[int, str, str]:
    """Return the exit code, what is printed, and what is said on standard error."""
    alerts = [posted(name, password="swordfish9", peer="10.0.0.7") for name in names]
    Path("alerts.json").write_bytes(body(*alerts, *also))
    if not Path("installed").exists():
        install(Path("installed"), ROGUE, POINTS)
        install(Path("installed"), LITELLMS, {"litellms": "handlers:Plain"}, "handlers")
    done = subprocess.run(
        [sys.executable, "-m", "proxy", "try-classifier", "alerts.json"],
        env={
            **{name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
            "PYTHONPATH": f"{REPOSITORY}:installed",
            "LLM_PROVIDER": "classifier",
            "LLM_MODEL": model,
            "LLM_TIMEOUT": "1s",
            **environ,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_it_shows_what_was_shown_and_what_is_left_of_the_answer():
    code, out, err = tries("Good", "PrintsSecrets", "HasNothingToSay", "Echoes")
    assert out.startswith(
        '=== alert 1 of 4: Good\nshown: {"labels": {"alertname": "Good", "password": "SECRET_1", "peer": "IP_1"}, '
    )
    assert (
        "\nseverity info, category network, confidence high\nsummary: The classifier says so.\n1. Look.\nin 0." in out
    )
    assert "swordfish9" not in out
    assert out.index("alert 2 of 4") < out.index(SECRET_WORDS) < out.index("alert 3 of 4")
    assert "\nNO VERDICT: undecided: Undecided; the rules decide, or the next of llm.fallbacks\n" in out
    assert "\nsummary: See 10.0.0.7.\n" in out, "as people will read it"
    assert out.endswith("alerts: 4, failed: 0\n")
    assert f"Undecided: {SECRET_WORDS}" in err
    assert code == 0


def test_an_author_sees_tracebacks():
    code, out, err = tries("Raises", "Good", "WrongSeverity", "Hangs")
    assert "NO VERDICT: rejected: KeyError;" in out
    assert "NO VERDICT: invalid_answer: unknown severity;" in out
    assert "NO VERDICT: timeout: no answer in time;" in out
    assert out.endswith("alerts: 4, failed: 3\n")
    assert "in Raises\n" in err
    assert f"KeyError: '{SECRET_WORDS}'" in err
    assert code == 1


@pytest.mark.parametrize(
    ("model", "said", "traceback"),
    [
        ("broken", "(rogue:Broken) cannot be made: OSError", f"OSError: {SECRET_WORDS}"),
        ("unimportable", "cannot be imported: ModuleNotFoundError for no_such_module", "No module named"),
        ("rouge", "no classifier 'rouge' is installed", ""),
    ],
)
def test_one_that_cannot_be_used_is_seen_to_be_so_before_anything_else(model, said, traceback):
    code, out, err = tries("Good", model=model)
    assert (code, out) == (1, "")
    assert said in err.splitlines()[-1]
    assert traceback in err
    assert bool(traceback) is ("Traceback" in err)


def test_a_handler_of_litellms_is_tried_too():
    code, out, err = tries("Good", "Raises", model="litellms/clf", LLM_TIMEOUT="30s")  # its first call loads more
    assert "summary: clf None None False\n" in out, "which it would not say if LiteLLM had asked the network"
    assert "NO VERDICT: unavailable: APIConnectionError 500;" in out
    assert f"KeyError: '{SECRET_WORDS}'" in err
    assert code == 1


def test_an_alert_that_cannot_be_read_is_left_out_and_said_to_be():
    code, out, err = tries("Good", also=[{"labels": {"alertname": None}}])
    assert err == "alert 2 of 2 is left out: its labels: not an object of strings\n"
    assert out.startswith("=== alert 1 of 1: Good\n")
    assert out.endswith("alerts: 1, failed: 0\n")
    assert code == 0


@pytest.mark.parametrize(
    ("content", "arguments", "said"),
    [
        ("[]", [], "llm.provider is openai, want classifier: one of your own\n"),
        ("{}", ["--llm.provider=classifier"], "alerts.json: want a JSON array of alerts"),
        (None, ["--llm.provider=classifier"], "alerts.json: cannot read the file: No such file or directory\n"),
    ],
)
def test_what_it_cannot_do_it_says(content, arguments, said, capsys):
    if content is not None:
        Path("alerts.json").write_text(content, encoding="utf-8")
    assert cli.main(["try-classifier", "alerts.json", *arguments]) == 1
    assert said in capsys.readouterr().err
