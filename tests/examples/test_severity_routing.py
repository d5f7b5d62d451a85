"""examples/severity-routing, judged by the real amtool: Debian's, and a newer one where `make tools` built it."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "examples" / "severity-routing" / "alertmanager.yml"


def amtools() -> list[str]:
    built = ROOT / ".tools" / "bin" / "amtool"
    return [str(found) for found in (shutil.which("amtool"), built) if found and Path(found).exists()]


@pytest.fixture(params=amtools() or [None])
def amtool(request):
    if request.param is None:
        pytest.fail("no amtool on PATH; `make programs` installs one")

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([request.param, *args], capture_output=True, text=True, timeout=30, check=False)

    return run


def test_amtool_accepts_it(amtool):
    answer = amtool("check-config", str(CONFIG))
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        pytest.param("ai_severity=critical severity=critical", "pager", id="critical pages"),
        pytest.param("ai_severity=warning severity=warning", "ticket", id="warning opens a ticket"),
        pytest.param("ai_severity=info severity=info", "chat", id="info is chatted about"),
        pytest.param("ai_severity=noise severity=info", "low-priority", id="noise is kept"),
        pytest.param("ai_severity=critical severity=warning", "pager", id="a raised warning pages"),
        pytest.param("ai_severity=noise severity=warning", "low-priority", id="a lowered warning is kept"),
        pytest.param("ai_severity=info", "chat", id="an alert whose author wrote no severity goes by the verdict"),
        pytest.param("severity=critical", "pager", id="a bare critical pages"),
        pytest.param("severity=page", "pager", id="a bare page pages"),
        pytest.param("severity=warning", "ticket", id="a bare warning opens a ticket"),
        pytest.param("severity=info", "chat", id="a bare info is chatted about"),
        pytest.param("severity=P3", "default", id="a bare severity nobody knows is kept"),
        pytest.param("alertname=Anything", "default", id="an alert with neither is kept"),
        pytest.param("ai_severity=unheard-of severity=critical", "pager", id="a verdict nobody knows is none"),
        pytest.param("ai_severity=unheard-of", "default", id="a verdict nobody knows loses no alert"),
        pytest.param("alertname=Watchdog severity=none", "heartbeat", id="the watchdog beats"),
        pytest.param("alertname=InfoInhibitor severity=none", "nobody", id="the info inhibitor only inhibits"),
    ],
)
def test_routes(amtool, labels, receiver):
    arguments = labels.split()
    answer = amtool("config", "routes", "test", f"--config.file={CONFIG}", f"--verify.receivers={receiver}", *arguments)
    assert (answer.returncode, answer.stdout.strip()) == (0, receiver), answer.stderr


def test_every_receiver_of_alerts_sends_them_somewhere():
    silent = [receiver["name"] for receiver in yaml.safe_load(CONFIG.read_text())["receivers"] if len(receiver) == 1]
    assert silent == ["nobody"]


def test_grouping_and_inhibition_name_no_label_of_the_proxy():
    config = yaml.safe_load(CONFIG.read_text())
    assert not [name for name in config["route"]["group_by"] if name.startswith("ai_")]
    assert not [child for child in config["route"]["routes"] if "group_by" in child]
    assert len(config["inhibit_rules"]) == 4
    assert "ai_" not in yaml.safe_dump(config["inhibit_rules"])
