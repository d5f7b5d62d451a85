"""docs/reference/classifiers.md: its classifier works as it stands, and all of the interface is on the page."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from datetime import timedelta
from pathlib import Path

import pytest
from configuring import load
from fake_provider import FakeProvider, Html, Status, Text, verdict
from own_classifiers import install, on_path
from workers import ALERT, config

from proxy import classifiers
from proxy.classification.worker.client import ModelWorker
from proxy.classification.worker.protocol import Model
from proxy.errors import ClassifierError

PAGE = (Path(__file__).parents[1] / "docs" / "reference" / "classifiers.md").read_text()
BLOCKS = dict(re.findall(r"^```(python|toml|yaml)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
SAID = verdict(category="capacity").text


@pytest.mark.parametrize(
    ("answers", "outcome"),
    [
        ([verdict(category="capacity")], "capacity"),
        ([Text("I think it is the disk."), Text(f"Sorry. {SAID}")], "capacity"),
        ([Status(503), verdict(category="capacity")], "capacity"),
        ([Status(429)], "rate_limited"),
        ([Html()], "unavailable"),
    ],
)
async def test_the_twenty_lines_do_what_the_page_says(answers, outcome, tmp_path, monkeypatch):
    points = tomllib.loads(BLOCKS["toml"])["project"]["entry-points"][classifiers.GROUP]
    install(tmp_path / "installed", BLOCKS["python"], points, "gateway")
    on_path(monkeypatch, tmp_path / "installed")
    async with FakeProvider(answers) as provider:
        one = Model("classifier", "gateway/big", "sk-gateway", f"{provider.url}/v1/chat/completions")
        async with ModelWorker(config(one, max_retries=1, timeout=timedelta(seconds=5))) as worker:
            try:
                found = (await worker.classifier(0).classify(ALERT)).category.value
            except ClassifierError as exc:
                found = exc.reason
        assert found == outcome
        assert {request.key for request in provider.requests} == {"sk-gateway"}
        assert {request.json["model"] for request in provider.requests} == {"big"}


def test_they_are_twenty():
    assert 18 <= len([line for line in BLOCKS["python"].splitlines() if line]) <= 20


@pytest.mark.usefixtures("a_directory_of_its_own")
def test_the_settings_can_be_loaded():
    Path("key").write_text("sk-gateway", encoding="utf-8")
    llm = load(BLOCKS["yaml"].replace("/run/secrets/gateway-key", "key")).settings.llm
    assert (llm.provider, llm.model.partition("/")[0]) == (classifiers.PROVIDER, "gateway")


def test_all_of_the_interface_is_on_the_page():
    errors = [name for name, one in vars(classifiers).items() if isinstance(one, type) and issubclass(one, Exception)]
    fields = [
        field.name
        for kind in (classifiers.Setup, classifiers.Request, classifiers.Verdict)
        for field in dataclasses.fields(kind)
    ]
    constants = [name for name in vars(classifiers) if name.isupper()]
    missing = [name for name in (*errors, *fields, *constants) if not re.search(rf"\b{name}\b", PAGE)]
    assert missing == ["ClassifierFailed", "GROUP", "PROVIDER"]
    assert f"`INTERFACE` is {classifiers.INTERFACE}" in PAGE
    assert f'entry-points."{classifiers.GROUP}"' in PAGE


def test_it_imports_nothing_of_the_product():
    source = Path(classifiers.__file__).read_text()
    assert re.findall(r"^(?:from|import) (\S+)", source, re.MULTILINE) == [
        "__future__", "collections.abc", "dataclasses", "typing",
    ]  # fmt: skip
