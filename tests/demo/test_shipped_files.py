"""What the demo gives Prometheus and Alertmanager, judged by the real promtool and amtool."""

from __future__ import annotations

import shutil
import string
import subprocess
from pathlib import Path

import pytest
import yaml

from proxy import demo
from proxy.demo.notifications import RECEIVERS
from proxy.demo.stage import alertnames

FILES = Path(demo.__file__).parent
VALUES = {
    "webhook": "http://127.0.0.1:34567",
    "home": "/tmp/demo",
    "prometheus": "127.0.0.1:9090",
    "proxy": "127.0.0.1:19093",
}
RULES = [rule for group in yaml.safe_load((FILES / "rules.yml").read_text())["groups"] for rule in group["rules"]]


@pytest.fixture
def filled(tmp_path):
    for name in ("prometheus.yml", "alertmanager.yml", "rules.yml"):
        text = (FILES / name).read_text()
        tmp_path.joinpath(name).write_text(text if name == "rules.yml" else string.Template(text).substitute(VALUES))
    return tmp_path


@pytest.mark.parametrize(
    "command",
    [
        pytest.param("promtool check config prometheus.yml", id="promtool reads prometheus.yml"),
        pytest.param("promtool check rules rules.yml", id="promtool reads rules.yml"),
        pytest.param("amtool check-config alertmanager.yml", id="amtool reads alertmanager.yml"),
    ],
)
def test_the_real_programs_accept_the_files(filled, command):
    name, *arguments = command.split()
    program = shutil.which(name)
    if program is None:
        pytest.fail(f"no {name} on PATH; `make programs` installs it")
    done = subprocess.run([program, *arguments], cwd=filled, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_alertmanager_routes_each_severity_where_the_table_expects_it(filled):
    config = yaml.safe_load((filled / "alertmanager.yml").read_text())
    routes = {route["receiver"]: route["matchers"] for route in config["route"]["routes"]}
    assert routes == {receiver: [f'ai_severity="{severity}"'] for severity, receiver in RECEIVERS.items()}
    assert config["route"]["receiver"] == "default"
    for receiver in config["receivers"]:
        (webhook,) = receiver["webhook_configs"]
        assert webhook["url"].endswith(f"/{receiver['name']}")


def test_groups_name_no_label_of_the_proxy(filled):
    config = yaml.safe_load((filled / "alertmanager.yml").read_text())
    assert not [name for name in config["route"]["group_by"] if name.startswith("ai_")]


def test_the_rules_are_a_dozen_of_various_severities():
    assert len(alertnames()) == 12
    severities = {rule["labels"].get("severity") for rule in RULES}
    assert severities >= {None, "critical", "page", "warning", "info", "none"}


def test_every_alert_has_a_summary_and_says_whose_it_is():
    for rule in RULES:
        assert rule["annotations"]["summary"]
        assert rule["alert"] in {"Watchdog", "TargetDown"} or rule["labels"].keys() >= {"namespace", "job", "instance"}


def test_every_name_fits_into_the_table():
    assert max(map(len, alertnames())) <= 22
