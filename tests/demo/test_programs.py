from __future__ import annotations

import socket
from pathlib import Path

import pytest

from proxy.demo.children import DemoError
from proxy.demo.programs import Programs, is_free, ports


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working directory, and a PATH of one directory in it; both empty."""
    (tmp_path / "bin").mkdir()
    (tmp_path / ".tools" / "bin").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path


def put(path: Path) -> str:
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("name", ["alertmanager", "prometheus-alertmanager"])
@pytest.mark.parametrize("where", ["bin", ".tools/bin"])
def test_programs_are_found_on_path_and_in_tools(place, name, where):
    prometheus, alertmanager = put(place / where / "prometheus"), put(place / where / name)
    assert Programs.find() == Programs(prometheus, alertmanager)


def test_path_comes_before_tools(place):
    for where in ("bin", ".tools/bin"):
        put(place / where / "prometheus")
        put(place / where / "alertmanager")
    assert Programs.find().alertmanager == str(place / "bin" / "alertmanager")


@pytest.mark.parametrize(
    ("there", "packages"),
    [
        ([], "prometheus prometheus-alertmanager"),
        (["prometheus"], "prometheus-alertmanager"),
        (["alertmanager"], "prometheus"),
    ],
)
def test_what_is_missing_can_be_installed_as_the_message_says(place, there, packages):
    for name in there:
        put(place / "bin" / name)
    with pytest.raises(DemoError) as raised:
        Programs.find()
    assert f"apt-get install --no-install-recommends {packages}\n" in str(raised.value)


def test_a_port_that_is_taken_is_not_tried():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        default = taken.getsockname()[1]
        assert not is_free(default)
        assert default not in list(ports(default))
    assert next(ports(default)) == default


def test_a_port_that_is_taken_on_all_addresses_is_not_tried():
    with socket.create_server(("0.0.0.0", 0)) as taken:
        assert not is_free(taken.getsockname()[1])
