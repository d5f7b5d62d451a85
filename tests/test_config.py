"""Settings: what each source may say, which one holds, and what is said about mistakes.

testdata/config/*.good.yml load; *.bad.yml begin with the exact messages they lead to.
"""

from __future__ import annotations

import copy
import logging
import os
import re
import runpy
import string
from dataclasses import FrozenInstanceError, asdict
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import config
from proxy.config import Address, Secret, kinds, sources
from proxy.config.catalog import CATALOG, declared, tables
from proxy.errors import ConfigError
from proxy.policy import Mode, SeverityFloor

CASES = Path(__file__).parent / "testdata" / "config"
REPOSITORY = Path(__file__).parent.parent
KEY = "hunter2"
"""The secret of all cases; it must never show."""
TOO_LONG = (
    "enrichment.budget ({}) must be shorter than alertmanager.timeout ({}), or no time is left to forward the alert"
)


def load(text: str | None = None, *, flags=(), **environ: str) -> config.Loaded:
    """Load `text` as config.yaml; flags as pairs of key and value."""
    file = None
    if text is not None:
        file = Path("config.yaml")
        file.write_text(text, encoding="utf-8")
    given: dict[str, list[str]] = {}
    for key, value in flags:
        given.setdefault(key, []).append(value)
    return config.load(file, environ=environ, flags=given)


def problems(text: str | None = None, *, flags=(), **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(text, flags=flags, **environ)
    return list(caught.value.problems)


@pytest.fixture(autouse=True)
def _in_a_directory_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def case(path: Path) -> str:
    return path.name.split(".")[0].replace("-", " ")


@pytest.mark.parametrize("path", sorted(CASES.glob("*.good.yml")), ids=case)
def test_good_file(path):
    load(path.read_text(encoding="utf-8"), LLM_API_KEY=KEY)


@pytest.mark.parametrize("path", sorted(CASES.glob("*.bad.yml")), ids=case)
def test_bad_file(path):
    text = path.read_text(encoding="utf-8")
    wanted = re.findall(r"^# want: (.*)$", text, re.MULTILINE)
    assert wanted
    assert problems(text, LLM_API_KEY=KEY) == wanted
    assert KEY not in "".join(wanted)


def test_the_file_of_the_readme_means_what_it_says():
    loaded = load((CASES / "as-in-the-readme.good.yml").read_text(encoding="utf-8"), LLM_API_KEY=KEY)
    llm = loaded.settings.llm
    assert llm.api_key.reveal() == KEY
    assert (llm.enabled, llm.provider, llm.model, llm.base_url) == (
        True,
        "openai",
        "gpt-4o",
        "https://api.openai.com/v1",
    )
    assert (llm.timeout, llm.max_retries, llm.cache_ttl) == (timedelta(seconds=30), 3, timedelta(hours=24))
    assert (llm.enable_cache, llm.enable_fallback) == (True, True)
    assert loaded.warnings == ()


def test_four_variables_are_enough():
    llm = load(LLM_ENABLED="true", LLM_PROVIDER="anthropic", LLM_API_KEY=KEY, LLM_MODEL="claude").settings.llm
    assert (llm.enabled, llm.provider, llm.api_key.reveal(), llm.model) == (True, "anthropic", KEY, "claude")


def test_every_setting_can_be_given_in_the_file():
    settings = load((CASES / "everything.good.yml").read_text(encoding="utf-8")).settings
    assert config.masked(settings) == {
        "web": {"listen_address": "[::1]:0", "admin_listen_address": "0.0.0.0:19094", "admin_token": "<secret>"},
        "alertmanager": {"url": "https://alertmanager.monitoring.svc:9093/alerts", "timeout": "9s500ms"},
        "enrichment": {
            "mode": "enriched",
            "budget": "1s500ms",
            "skip": ['alertname=~"Watchdog|InfoInhibitor"', '{severity="info", team=~"a,b"}'],
            "severity_floor": "off",
            "severity_label": "triage_severity",
            "category_label": "triage_category",
            "annotation_prefix": "triage_",
        },
        "store": {"url": "memory:"},
        "llm": {
            "enabled": True,
            "provider": "ollama",
            "model": "4",
            "api_key": "",
            "base_url": "http://ollama:11434",
            "timeout": "1m",
            "max_retries": 0,
            "enable_cache": False,
            "cache_ttl": "7d",
            "enable_fallback": False,
            "concurrency": 64,
            "max_tokens": 50,
        },
        "log": {"level": "debug", "format": "json"},
    }
    assert settings.web.admin_token.reveal() == "12345"
    assert settings.web.listen_address == Address("::1", 0)


def test_nothing_given_means_the_defaults():
    loaded = load()
    assert loaded.settings == config.Settings()
    assert loaded.warnings == ()
    assert set(loaded.origins.values()) == {"default"}


@pytest.mark.parametrize("name", ["empty", "only-a-comment", "null", "sections-and-keys-without-a-value"])
def test_a_file_that_says_nothing_means_the_defaults(name):
    loaded = load((CASES / f"{name}.good.yml").read_text(encoding="utf-8"))
    assert loaded.settings == config.Settings()
    assert set(loaded.origins.values()) == {"default"}


def test_the_defaults_leave_out_signals_and_the_proxys_own_alerts():
    assert config.Settings().enrichment.skip == (
        'alertname=~"Watchdog|InfoInhibitor"',
        'alertname=~"AlertmanagerAIProxy.*"',
    )


# Precedence


@pytest.mark.parametrize(
    ("sources", "model", "origin"),
    [
        pytest.param({}, "gpt-4o", "default", id="default"),
        pytest.param({"text"}, "from-file", "config.yaml:3", id="the file over the default"),
        pytest.param({"text", "variable"}, "from-variable", "LLM_MODEL", id="the variable over the file"),
        pytest.param({"text", "variable", "flag"}, "from-flag", "--llm.model", id="the flag over all"),
        pytest.param({"text", "flag"}, "from-flag", "--llm.model", id="the flag over the file"),
    ],
)
def test_precedence(sources, model, origin):
    loaded = load(
        "\nllm:\n  model: from-file\n" if "text" in sources else None,
        flags=[("llm.model", "from-flag")] if "flag" in sources else [],
        **({"LLM_MODEL": "from-variable"} if "variable" in sources else {}),
    )
    assert (loaded.settings.llm.model, loaded.origins["llm.model"]) == (model, origin)


def test_a_list_is_replaced_and_not_added_to():
    loaded = load('enrichment:\n  skip: [a="file"]\n', ENRICHMENT_SKIP='a="variable"')
    assert loaded.settings.enrichment.skip == ('a="variable"',)


def test_an_empty_list_takes_the_default_away():
    assert load((CASES / "no-skipping.good.yml").read_text(encoding="utf-8")).settings.enrichment.skip == ()


@pytest.mark.parametrize("value", ["", " ", "\n"])
def test_an_empty_variable_is_not_set(value):
    loaded = load("llm:\n  model: from-file\n", LLM_MODEL=value, LLM_TIMEOUT=value, ENRICHMENT_SKIP=value)
    assert loaded.settings.llm.model == "from-file"
    assert loaded.settings.enrichment.skip == config.Settings().enrichment.skip


def test_unknown_variables_are_ignored():
    load(LLM_TIMEUOT="30x", REDIS_PORT="tcp://10.0.0.1:6379", ALERTMANAGER_PORT="tcp://10.0.0.2:9093", PATH="/bin")


@given(st.text(alphabet='a=",{} '))
def test_only_lists_are_split(text):
    name = f"x{text}x"
    assert load(LLM_MODEL=name).settings.llm.model == name


def test_no_variable_is_one_that_kubernetes_sets_beside_a_service():
    # For each Service: X_SERVICE_HOST, X_SERVICE_PORT[_NAME], X_PORT, X_PORT_9093_TCP[_PROTO|_PORT|_ADDR].
    kubernetes = re.compile(r"_SERVICE_(HOST|PORT)(_|$)|_PORT$|_PORT_\d+_(TCP|UDP)(_|$)")
    assert [setting.variable for setting in CATALOG if kubernetes.search(setting.variable)] == []


def test_the_last_of_repeated_flags_holds():
    assert load(flags=[("llm.model", "first"), ("llm.model", "second")]).settings.llm.model == "second"


def test_repeated_flags_make_a_list_and_commas_stay_in_their_entry():
    loaded = load(flags=[("enrichment.skip", 'a="1", b="2"'), ("enrichment.skip", 'c="3"')])
    assert loaded.settings.enrichment.skip == ('a="1", b="2"', 'c="3"')


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        pytest.param('alertname=~"Watchdog|InfoInhibitor"', ('alertname=~"Watchdog|InfoInhibitor"',), id="one"),
        pytest.param('a="1", b="2"', ('a="1"', 'b="2"'), id="a comma separates entries"),
        pytest.param('a=~"x{1,2}",b="2"', ('a=~"x{1,2}"', 'b="2"'), id="a comma in quotes does not"),
        pytest.param(r'a="\",",b="2"', (r'a="\","', 'b="2"'), id="an escaped quote ends nothing"),
        pytest.param('{a="1",b="}"},{c="3"}', ('{a="1",b="}"}', '{c="3"}'), id="a comma in braces does not"),
        pytest.param('a="1",,', ('a="1"',), id="empty entries are dropped"),
        pytest.param("a=1,b=2", ("a=1", "b=2"), id="values without quotes"),
    ],
)
def test_commas_in_variables(text, entries):
    assert load(ENRICHMENT_SKIP=text).settings.enrichment.skip == entries


@given(st.text(alphabet='a=",{}\\ '))
def test_splitting_at_commas_loses_nothing(text):
    assert ",".join(sources.split_list(text)) == text


# Mistakes


def test_all_mistakes_of_all_sources_are_reported_together():
    found = problems(
        "llm:\n  timeuot: 1s\n  timeout: 30x\nenrichment:\n  budget: 20s\n",
        flags=[("llm.timeout", "soon"), ("log.level", "loud"), ("log.levle", "info")],
        LLM_TIMEOUT="30",
        LLM_MAX_RETRIES="-1",
        WEB_ADMIN_TOKEN_FILE="/no/such/file",  # a path
    )
    assert found == [
        "config.yaml:2: unknown key llm.timeuot; did you mean llm.timeout?",
        "config.yaml:3: llm.timeout: bad duration '30x', want for example 30s",
        "LLM_TIMEOUT: bad duration '30', it needs a unit: ms, s, m, h, d or w; want for example 30s",
        "LLM_MAX_RETRIES: -1 is out of range, want a whole number from 0 to 10",
        "--llm.timeout: bad duration 'soon', want for example 30s",
        "--log.level: unknown value 'loud', want one of debug, info, warning, error",
        "--log.levle: unknown flag; did you mean --log.level?",
        "WEB_ADMIN_TOKEN_FILE: cannot read the file: No such file or directory",
        f"config.yaml:5: {TOO_LONG.format('20s', '9s')}",
    ]


def test_a_mistake_counts_even_where_a_better_source_has_the_value():
    assert problems("llm:\n  timeout: 30x\n", LLM_TIMEOUT="30s") == [
        "config.yaml:2: llm.timeout: bad duration '30x', want for example 30s"
    ]


def test_a_secret_in_the_place_of_a_file_does_not_show():
    assert KEY not in "".join(problems(f"web:\n  admin_token_file: {KEY}\n"))


def test_a_missing_file_is_a_mistake_beside_others():
    with pytest.raises(ConfigError) as caught:
        config.load(Path("none.yaml"), environ={"LLM_ENABLED": "maybe"})
    assert caught.value.problems == (
        "none.yaml: cannot read the file: No such file or directory",
        "LLM_ENABLED: bad value 'maybe', want true or false",
    )


def test_a_directory_is_no_file():
    Path("config.d").mkdir()
    with pytest.raises(ConfigError, match=r"^config.d: cannot read the file: Is a directory$"):
        config.load(Path("config.d"), environ={})


@pytest.mark.parametrize(
    "content", [b"llm:\n  model: \xff\n", "llm:\n  model: é\0\n".encode()], ids=["not UTF-8", "NUL"]
)
def test_a_binary_file_is_a_mistake_with_its_line(content):
    Path("config.yaml").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        config.load(Path("config.yaml"), environ={})
    assert caught.value.problems == ("config.yaml:2: not valid YAML: want UTF-8 text without control characters",)


def test_brackets_without_end_are_a_mistake():
    assert problems("[" * 10_000) == ["config.yaml: not valid YAML: an impossible escape, or nested too deeply"]


@given(st.text(alphabet=st.one_of(st.sampled_from("llm:webskip \n-[]{}\"'$&*!|>#?,\\"), st.characters())))
def test_any_file_loads_or_is_a_list_of_mistakes(text):
    Path("config.yaml").write_bytes(text.encode(errors="replace"))
    try:
        config.load(Path("config.yaml"), environ={})
    except ConfigError as exc:
        assert all(problem.startswith("config.yaml") for problem in exc.problems)  # noqa: PT017 both ends are right


def test_a_conflict_stands_where_a_value_was_given():
    assert problems(ALERTMANAGER_TIMEOUT="2s") == [f"ALERTMANAGER_TIMEOUT: {TOO_LONG.format('3s', '2s')}"]


def test_nothing_is_said_about_the_default_of_a_refused_value():
    assert problems(ENRICHMENT_BUDGET="soon", ALERTMANAGER_TIMEOUT="2s") == [
        "ENRICHMENT_BUDGET: bad duration 'soon', want for example 30s"
    ]


@pytest.mark.parametrize(("timeout", "warned"), [("9s999ms", False), ("10s", True), ("1m", True)])
def test_a_timeout_longer_than_prometheus_waits_is_a_warning(timeout, warned):
    loaded = load(flags=[("alertmanager.timeout", timeout)])
    assert [w.partition(" should")[0] for w in loaded.warnings] == (
        [f"--alertmanager.timeout: alertmanager.timeout ({timeout})"] if warned else []
    )


@pytest.mark.parametrize("level", ["off", "OFF", "false", '"off"', "'off'"])
def test_a_floor_that_yaml_takes_for_a_boolean(level):
    settings = load(f"enrichment:\n  severity_floor: {level}\n").settings
    assert settings.enrichment.severity_floor is SeverityFloor.OFF


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", True), ("True", True), ("yes", True), ("on", True), ("1", True), ("false", False), ("0", False)],
)
def test_spellings_of_true_and_false(text, value):
    assert load(f"llm:\n  enabled: {text}\n").settings.llm.enabled is value
    assert load(LLM_ENABLED=text).settings.llm.enabled is value
    assert load(flags=[("llm.enabled", text)]).settings.llm.enabled is value


# Variables in the file


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("${NAME}", "gpt", id="alone"),
        pytest.param("a-${NAME}-${NAME}b", "a-gpt-gptb", id="inside a longer value"),
        pytest.param('"${NAME}"', "gpt", id="in quotes"),
        pytest.param("a$${NAME}", "a${NAME}", id="escaped"),
        pytest.param("$NAME", "$NAME", id="without braces it is no variable"),
        pytest.param("a$$b", "a$$b", id="dollars stand for themselves"),
        pytest.param("${NESTED}", "${NAME}", id="expanded once"),
        pytest.param("[${NAME}]", None, id="a list stays a list"),
    ],
)
def test_variables_in_the_file(text, value):
    environ = {"NAME": "gpt", "NESTED": "${NAME}"}
    if value is None:
        assert problems(f"llm:\n  model: {text}\n", **environ)
    else:
        assert load(f"llm:\n  model: {text}\n", **environ).settings.llm.model == value


@pytest.mark.parametrize("environ", [{}, {"NAME": ""}], ids=["not set", "empty"])
def test_a_variable_that_is_not_set_is_a_warning(environ):
    loaded = load("llm:\n  api_key: ${NAME}\n  model: a${NAME}\n  timeout: ${NAME}\n", **environ)
    assert loaded.warnings == (
        "config.yaml:2: llm.api_key: variable NAME is not set, taken as empty",
        "config.yaml:3: llm.model: variable NAME is not set, taken as empty",
        "config.yaml:4: llm.timeout: variable NAME is not set, taken as empty",
    )
    assert not loaded.settings.llm.api_key
    assert loaded.settings.llm.model == "a"
    assert loaded.settings.llm.timeout == timedelta(seconds=30)
    assert loaded.origins["llm.timeout"] == "default"


def test_an_entry_that_becomes_empty_is_left_out():
    # An empty list of matchers would take in every alert.
    loaded = load('enrichment:\n  skip:\n    - ${NAME}\n    - a="1"\n')
    assert loaded.settings.enrichment.skip == ('a="1"',)
    assert loaded.warnings == ("config.yaml:3: enrichment.skip: variable NAME is not set, taken as empty",)


# Secrets


def test_a_secret_does_not_show():
    secret = Secret(KEY)
    shown = [str(secret), repr(secret), f"{secret}", f"{secret!r}", "%s" % secret, "{:>10}".format(secret)]  # noqa: UP031, UP032 each has its own way to the text
    assert [text.strip() for text in shown] == ["<secret>"] * len(shown)
    assert secret.reveal() == KEY
    assert copy.deepcopy(secret) == secret != Secret("other")
    assert (bool(secret), bool(Secret())) == (True, False)


def test_secrets_never_show(caplog):
    loaded = load(LLM_API_KEY=KEY, WEB_ADMIN_TOKEN=KEY)
    assert loaded.settings.llm.api_key.reveal() == loaded.settings.web.admin_token.reveal() == KEY
    logging.getLogger().warning("%s %r %s", loaded, loaded.settings, loaded.settings.llm)
    masked = config.masked(loaded.settings)
    assert (masked["llm"]["api_key"], masked["web"]["admin_token"]) == ("<secret>", "<secret>")
    assert KEY not in f"{caplog.text} {masked} {asdict(loaded.settings)}"


def test_a_secret_is_no_flag():
    (found,) = problems(flags=[("llm.api_key", KEY)])
    assert found.startswith("--llm.api-key: a secret is never a flag")
    assert found.endswith("use the variable LLM_API_KEY or --llm.api-key-file")
    assert KEY not in found


@pytest.mark.parametrize("name", ["llm.api_key", "web.admin_token"])
def test_a_secret_comes_from_a_file(name):
    Path("secret").write_text(f" {KEY} \r\n\n", encoding="utf-8")
    section, _, key = name.partition(".")
    variable = name.upper().replace(".", "_") + "_FILE"
    for origin, loaded in {
        "config.yaml:2": load(f"{section}:\n  {key}_file: secret\n"),
        variable: load(**{variable: "secret"}),
        f"--{name.replace('_', '-')}-file": load(flags=[(f"{name}_file", "secret")]),
    }.items():
        assert getattr(getattr(loaded.settings, section), key).reveal() == f" {KEY} "
        assert loaded.origins[name] == loaded.origins[f"{name}_file"] == origin


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_line_end_after_a_secret_in_a_variable_does_not_count(end):
    assert load(LLM_API_KEY=KEY + end).settings.llm.api_key.reveal() == KEY


def test_a_secret_and_its_file_are_one_too_many():
    Path("secret").write_text("other", encoding="utf-8")
    assert problems("llm:\n  api_key: ${LLM_API_KEY}\n", LLM_API_KEY=KEY, LLM_API_KEY_FILE="secret") == [
        "LLM_API_KEY_FILE: llm.api_key is given too (LLM_API_KEY), leave out one of the two"
    ]


def test_an_empty_secret_leaves_the_place_to_its_file():
    Path("secret").write_text(KEY, encoding="utf-8")
    for api_key in ("${LLM_API_KEY}", '""', ""):
        loaded = load(f"llm:\n  api_key: {api_key}\n", LLM_API_KEY_FILE="secret")
        assert loaded.settings.llm.api_key.reveal() == KEY


def unreadable(kind: str) -> str:
    match kind:
        case "missing":
            return KEY  # a key where its file's name belongs must not show either
        case "empty":
            Path("empty").write_text("\n", encoding="utf-8")
        case "binary":
            Path("binary").write_bytes(b"\xff" + KEY.encode())
        case "directory":
            Path("directory").mkdir()
    return kind


@pytest.mark.parametrize(
    ("kind", "trouble"),
    [
        ("missing", "cannot read the file: No such file or directory"),
        ("empty", "the file is empty"),
        ("binary", "cannot read the file: it is not text"),
        ("directory", "cannot read the file: Is a directory"),
    ],
)
def test_a_secret_that_cannot_be_read(kind, trouble):
    path = unreadable(kind)
    loaded = load(LLM_API_KEY_FILE=path)
    assert loaded.warnings == (f"LLM_API_KEY_FILE: {trouble}; llm.api_key stays empty",)
    assert not loaded.settings.llm.api_key
    assert problems(WEB_ADMIN_TOKEN_FILE=path) == [f"WEB_ADMIN_TOKEN_FILE: {trouble}"]


def test_a_path_is_taken_as_it_stands(monkeypatch):
    monkeypatch.setenv("HOME", os.fspath(Path.cwd()))
    Path("secret").write_text(KEY, encoding="utf-8")
    assert load(LLM_API_KEY_FILE="~/secret").warnings


# Kinds of values


@given(st.integers(min_value=1, max_value=10**12).map(lambda ms: timedelta(milliseconds=ms)))
def test_a_shown_duration_reads_as_itself(value):
    assert kinds.DurationKind().parse(config.format_duration(value)) == value


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("500ms", "500ms"),
        ("90s", "1m30s"),
        ("1h30m", "1h30m"),
        ("24h", "24h"),
        ("1d", "24h"),
        ("48h", "2d"),
        ("7d", "7d"),
        ("1w", "7d"),
        ("2d1ms", "2d1ms"),
    ],
)
def test_durations(text, shown):
    assert config.format_duration(kinds.DurationKind().parse(text)) == shown


@pytest.mark.parametrize(
    "text", ["", "s", "1h 30m", "30m1h", "1.5h", "1H", "1s1s", "1µs", "٣s", "9" * 13 + "s", "999999999999w"]
)
def test_what_is_no_duration(text):
    with pytest.raises(ValueError, match="want for example 30s"):
        kinds.DurationKind().parse(text)


HOSTS = st.one_of(
    st.just(""),
    st.text(alphabet=string.ascii_letters + string.digits + ".-", min_size=1),
    st.ip_addresses().map(str),
)


@given(HOSTS, st.integers(min_value=0, max_value=65535))
def test_a_shown_address_reads_as_itself(host, port):
    address = Address(host, port)
    assert kinds.AddressKind().parse(str(address)) == address


@pytest.mark.parametrize(
    "text", ["", "19093", "::1:19093", "[::1]", "host:", "host:65536", "ho st:1", "[1.2.3.4]:1", "http://h:1"]
)
def test_what_is_no_address(text):
    with pytest.raises(ValueError, match="want for example :19093"):
        kinds.AddressKind().parse(text)


@pytest.mark.parametrize("text", ["http://a", "https://a:1/b/c", "http://[::1]:9093", "HTTP://a_b.svc"])
def test_urls(text):
    assert kinds.UrlKind().parse(text) == text
    assert kinds.UrlKind().parse(text + "/") == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a:9093",
        "ftp://a",
        "http://",
        "http:///path",
        "http://:9093",
        "http://a:x",
        "http://a:0",
        "http://a:65536",
        "http://[::1",
        "http://a b",
        "http://a\\b",
        "http://u@a",
        "http://u:hunter2@a",
        "http://a?",
        "http://a?k=hunter2",
        "http://a#",
        "redis://:hunter2@a",
    ],
)
def test_what_is_no_url(text):
    with pytest.raises(ValueError, match="want for example http") as caught:
        kinds.UrlKind().parse(text)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("setting", CATALOG, ids=lambda setting: setting.key)
def test_every_default_reads_as_itself(setting):
    if setting.is_secret or setting.default is None:
        assert not setting.default
        return
    texts = setting.show(setting.default)
    values = [setting.kind.parse(text) for text in texts]
    assert (tuple(values) if setting.is_list else values[0]) == setting.default


def test_settings_do_not_change():
    with pytest.raises(FrozenInstanceError):
        config.Settings().llm.model = "other"


# The catalogue


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
    assert [flag.name for flag in flags.values() if flag.is_secret] == ["--web.admin-token", "--llm.api-key"]
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
