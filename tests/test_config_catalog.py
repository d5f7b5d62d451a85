"""Settings: what is declared is known under all its names, and described."""

from __future__ import annotations

import re
import runpy
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import pytest
from configuring import KEY, REPOSITORY, load

from proxy import config
from proxy.config import Secret, kinds, sources
from proxy.config.catalog import CATALOG, declared, tables
from proxy.policy import Mode

pytestmark = pytest.mark.usefixtures("a_directory_of_its_own")


class Breaker(kinds.Section):
    """When to stop asking."""

    max_failures: Annotated[int, kinds.Between(1, 9)] = 5
    pause: kinds.Duration = timedelta(seconds=30)
    token: Secret = Secret()


class Model(kinds.Section):
    """What is asked."""

    breaker: Breaker = Breaker()


class Root(kinds.Section):
    model: Model = Model()


class Odd(kinds.Section):
    ratio: float = 0.5


def test_sections_nest_to_any_depth():
    known = {setting.key: setting for setting in declared(Root)}
    assert {setting.key: (setting.variable, setting.flag) for setting in known.values()} == {
        "model.breaker.max_failures": ("MODEL_BREAKER_MAX_FAILURES", "--model.breaker.max-failures"),
        "model.breaker.pause": ("MODEL_BREAKER_PAUSE", "--model.breaker.pause"),
        "model.breaker.token": ("MODEL_BREAKER_TOKEN", "--model.breaker.token"),
        "model.breaker.token_file": ("MODEL_BREAKER_TOKEN_FILE", "--model.breaker.token-file"),
    }
    Path("config.yaml").write_text("model:\n  breaker:\n    pause: 1m\n    max_failuers: 3\n", encoding="utf-8")
    report = sources.Report()
    values, _ = sources.read(
        known,
        report,
        Path("config.yaml"),
        {"MODEL_BREAKER_MAX_FAILURES": "7"},
        {"model.breaker.token": [KEY], "model.breaker.pause": ["2m"]},
    )
    assert sources.filled(Root, values).model.breaker == Breaker(max_failures=7, pause=timedelta(minutes=2))
    assert [problem.partition(";")[0] for problem in report.problems] == [
        "config.yaml:4: unknown key model.breaker.max_failuers",
        "--model.breaker.token: a secret is never a flag, everybody can read those",
    ]
    outer, inner = tables(Root)
    assert outer == "## model\n\nWhat is asked.\n"
    assert inner.startswith("## model.breaker\n\nWhen to stop asking.\n\n| Key |")
    assert inner.count("| `model.breaker.") == 4


def test_a_field_that_nothing_can_read_is_noticed_at_once():
    with pytest.raises(TypeError, match="no kind of setting reads"):
        list(declared(Odd))


def test_names_are_unique_and_follow_from_the_key():
    for names in ([s.key for s in CATALOG], [s.variable for s in CATALOG], [s.flag for s in CATALOG]):
        assert len(set(names)) == len(names)
    by_key = {setting.key: setting for setting in CATALOG}
    address = by_key["web.listen_address"]
    assert (address.variable, address.flag) == ("WEB_LISTEN_ADDRESS", "--web.listen-address")
    assert [setting.key for setting in CATALOG if not setting.description] == []


def test_flags_describe_themselves():
    flags = {flag.name: flag for flag in config.flags()}
    model = flags["--llm.model"]
    assert (model.key, model.default, model.metavar) == ("llm.model", "gpt-4o", "TEXT")
    assert (model.is_bool, model.is_list, model.is_secret) == (False, False, False)
    assert flags["--llm.enabled"].is_bool
    assert flags["--enrichment.skip"].is_list
    assert flags["--enrichment.mode"].metavar == "transparent|enriched|transparent_with_recommendations"
    assert [flag.name for flag in flags.values() if flag.is_secret] == [
        "--web.admin-token",
        "--alertmanager.basic-auth.password",
        "--alertmanager.authorization.credentials",
        "--store.password",
        "--store.sentinel-password",
        "--llm.api-key",
    ]
    assert flags["--llm.api-key-file"].metavar == "FILE"
    assert all(flag.help and "`" not in flag.help for flag in flags.values())


def test_a_list_default_can_be_given_as_the_variable():
    (skip,) = (flag for flag in config.flags() if flag.key == "enrichment.skip")
    assert load(ENRICHMENT_SKIP=skip.default).settings == config.Settings()


def test_the_reference_page_is_current(capsys):
    page = (REPOSITORY / "docs" / "reference" / "configuration.md").read_text(encoding="utf-8")
    assert page.endswith(config.reference()), "run `make docs`"
    runpy.run_module("proxy.config", run_name="__main__")
    assert capsys.readouterr().out == page, "run `make docs`"


def test_the_reference_has_a_row_for_each_setting():
    rows = [line for line in config.reference().splitlines() if line.startswith("| `")]
    assert [re.split(r"`", row)[1] for row in rows] == [setting.key for setting in CATALOG]
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 7 for row in rows)


def test_the_example_of_the_reference_page_loads():
    page = (REPOSITORY / "docs" / "reference" / "configuration.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert load(example, LLM_API_KEY=KEY).settings.enrichment.mode is Mode.ENRICHED
