"""Settings: what each source may say, which one holds, and what is said about mistakes.

testdata/config/*.good.yml load; *.bad.yml begin with the exact messages they lead to.
"""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest
from configuring import CASES, KEY, load, problems
from hypothesis import given
from hypothesis import strategies as st

from proxy import config
from proxy.config import Address, sources
from proxy.config.catalog import CATALOG
from proxy.errors import ConfigError
from proxy.policy import SeverityFloor

pytestmark = pytest.mark.usefixtures("a_directory_of_its_own")
BOTH = "alertmanager.authorization and alertmanager.basic_auth are both set"
TOO_LONG = (
    "enrichment.budget ({}) must be shorter than alertmanager.timeout ({}), or no time is left to forward the alert"
)


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
        "web": {
            "listen_address": "[::1]:0",
            "admin_listen_address": "0.0.0.0:19094",
            "allow_anonymous": True,
            "admin_token": "<secret>",
            "header_timeout": "10s",
            "body_timeout": "2m",
            "idle_timeout": "2h",
            "max_connections": 512,
            "max_body_size": "32MiB",
            "max_body_memory": "1GiB",
            "config": {"file": "web.yml"},
            "admin_config": {"file": "/etc/web-admin.yml"},
        },
        "alertmanager": {
            "url": ["https://alertmanager.monitoring.svc:9093/alerts", "dns+http://alertmanager-operated:9093"],
            "min_success": 2,
            "timeout": "9s500ms",
            "replicas": 3,
            "tls_config": {
                "ca_file": "tls/ca.pem",
                "cert_file": "tls/proxy.pem",
                "key_file": "tls/proxy.key",
                "server_name": "alertmanager.example",
                "insecure_skip_verify": True,
            },
            "basic_auth": {"username": "ada", "password": "<secret>"},
            "authorization": {"credentials": ""},
        },
        "enrichment": {
            "mode": "enriched",
            "budget": "1s500ms",
            "skip": ['alertname=~"Watchdog|InfoInhibitor"', '{severity="info", team=~"a,b"}'],
            "severity_floor": "off",
            "severity_label": "triage_severity",
            "category_label": "triage_category",
            "annotation_prefix": "triage_",
            "former_labels": ["ai_severity", "ai_category"],
            "repost": False,
            "canary": {"percent": 12.5, "by": "identity", "matchers": ["team=db", 'env="prod", zone=~"a,b"']},
        },
        "storage": {"path": "/var/lib/alertmanager-ai-proxy"},
        "store": {
            "url": "rediss+sentinel://one:26379,[::1]:26379/mymaster/3",
            "username": "proxy",
            "password": "<secret>",
            "sentinel_username": "guard",
            "sentinel_password": "<secret>",
            "timeout": "250ms",
            "prefix": "aiproxy_eu",
            "max_decisions": 5000000,
        },
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
            "batch_size": 20,
            "max_tokens": 50,
            "object_labels": ["pod", "shard"],
            "min_confidence": "medium",
            "labels": ["alertname", "severity"],
            "annotations": ["*"],
            "prompt_file": "prompt.jinja",
            "context_file": "context.yaml",
            "redact": {"enabled": False, "patterns": ["cust-[0-9]{1,3}", r"customer=(\w+)"], "hosts": True},
            "stream": False,
            "fallbacks": [
                "ollama/llama3.2",
                "openai/openai/gpt-oss-20b@http://[::1]:8000/v1",
                "vertex_ai/claude-haiku-4-5@20251001",
            ],
            "circuit_breaker": {
                "enabled": False,
                "max_failures": 6,
                "failure_rate": 100,
                "slow_rate": 1,
                "slow_call": "3s",
                "min_calls": 1,
                "reset_timeout": "1m",
            },
            "prices": ["my-model=0.15/0.6", "openai/gpt=4/12.5"],
            "budget": {"usd_per_day": 2.5, "tokens_per_day": 5000000},
        },
        "rules": {"file": "my-rules.yaml"},
        "log": {"level": "debug", "format": "json"},
    }
    assert settings.web.admin_token.reveal() == "12345"
    assert settings.alertmanager.basic_auth.password.reveal() == settings.store.password.reveal() == "67890"
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


@pytest.mark.parametrize(("idle", "warned"), [("5m1s", False), ("5m", True), ("1m15s", True)])
def test_connections_that_are_closed_between_two_posts_are_warned_of(idle, warned):
    loaded = load(flags=[("web.idle_timeout", idle)])
    assert [warning.partition(" should")[0] for warning in loaded.warnings] == (
        [f"--web.idle-timeout: web.idle_timeout ({idle})"] if warned else []
    )


@pytest.mark.parametrize(("timeout", "warned"), [("9s999ms", False), ("10s", True), ("1m", True)])
def test_a_timeout_longer_than_prometheus_waits_is_a_warning(timeout, warned):
    loaded = load(flags=[("alertmanager.timeout", timeout)])
    assert [w.partition(" should")[0] for w in loaded.warnings] == (
        [f"--alertmanager.timeout: alertmanager.timeout ({timeout})"] if warned else []
    )


@pytest.mark.parametrize(
    ("replicas", "url", "warned"),
    [
        pytest.param("2", "sqlite:", True, id="two and a store for one"),
        pytest.param("2", "memory:", True, id="two and no store"),
        pytest.param("2", "redis://redis", False, id="two and one store"),
        pytest.param("2", "rediss+sentinel://one/mymaster", False, id="two and one store of several"),
        pytest.param("1", "sqlite:", False, id="one"),
        pytest.param("auto", "sqlite:", False, id="nobody knows yet"),
    ],
)
def test_several_proxies_without_a_shared_store_are_a_warning(replicas, url, warned):
    loaded = load(flags=[("alertmanager.replicas", replicas), ("store.url", url)])
    assert [w.partition(" all labels")[0] for w in loaded.warnings] == (
        [f"--alertmanager.replicas: alertmanager.replicas is {replicas}, and store.url ({url}) is not shared:"]
        if warned
        else []
    )


@pytest.mark.parametrize(
    "given",
    [
        {"ALERTMANAGER_BASIC_AUTH_USERNAME": "ada"},
        {"ALERTMANAGER_BASIC_AUTH_PASSWORD": KEY},
        {"ALERTMANAGER_BASIC_AUTH_USERNAME": "ada", "ALERTMANAGER_BASIC_AUTH_PASSWORD": KEY},
    ],
    ids=["a user", "a password", "both"],
)
def test_a_token_beside_a_user_is_one_too_many(given):
    load(WEB_ALLOW_ANONYMOUS="true", **given)
    assert problems(WEB_ALLOW_ANONYMOUS="true", ALERTMANAGER_AUTHORIZATION_CREDENTIALS=KEY, **given) == [
        f"ALERTMANAGER_AUTHORIZATION_CREDENTIALS: {BOTH}, leave one out"
    ]


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
