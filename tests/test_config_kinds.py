"""Settings: the kinds of values, and secrets, which never show."""

from __future__ import annotations

import copy
import logging
import os
import string
from dataclasses import FrozenInstanceError, asdict
from datetime import timedelta
from pathlib import Path

import pytest
from configuring import KEY, load, problems
from hypothesis import given
from hypothesis import strategies as st

from proxy import config
from proxy.config import Address, Secret, kinds
from proxy.config.catalog import CATALOG

pytestmark = pytest.mark.usefixtures("a_directory_of_its_own")


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


@pytest.mark.parametrize("name", ["llm.api_key", "web.admin_token", "store.password"])
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


@pytest.mark.parametrize(
    "text",
    [
        "memory:",
        "sqlite:",
        "sqlite:/var/lib/decisions.db",
        "redis://redis",
        "redis://redis:6379/0",
        "rediss://[::1]:6379/15",
        "redis+sentinel://one:26379,two/mymaster",
        "rediss+sentinel://one/mymaster/3",
        "redis+cluster://one:6379,two:6379",
        "redis://redis:6379/",
    ],
)
def test_urls_of_stores(text):
    assert kinds.StoreUrlKind().parse(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "memory",
        "memory:x",
        "sqlite:a?mode=ro",
        "redis:",
        "redis://",
        "redis://redis/db",
        "redis://redis/0/1",
        "redis://one,two",
        "redis://redis?db=0",
        "redis://re dis",
        "redis://:hunter2@redis",
        "redis://redis:65x",
        "redis+sentinel://one",
        "redis+sentinel://one/mymaster/0/1",
        "redis+cluster://one/0",
        "redis+proxy://one",
        "http://redis",
    ],
)
def test_what_is_no_url_of_a_store(text):
    with pytest.raises(ValueError, match="want") as caught:
        kinds.StoreUrlKind().parse(text)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(("text", "replicas"), [("auto", 0), ("Auto", 0), ("1", 1), ("1000", 1000)])
def test_replicas(text, replicas):
    assert kinds.ReplicasKind().parse(text) == replicas


@pytest.mark.parametrize("text", ["", "0", "-1", "1001", "2.0", "automatic", "٣"])
def test_what_is_no_number_of_replicas(text):
    with pytest.raises(ValueError, match="want auto, or how many proxies there are"):
        kinds.ReplicasKind().parse(text)


@given(st.integers(0, 100_000).map(lambda thousandths: thousandths / 1000))
def test_a_shown_share_reads_as_itself(percent):
    assert kinds.PercentKind().parse(kinds.PercentKind().show(percent)) == percent


@pytest.mark.parametrize("text", ["", "-1", "100.001", "101", "10%", "1e1", ".5", "nan", "٣"])
def test_what_is_no_share(text):
    with pytest.raises(ValueError, match="want a number from 0 to 100"):
        kinds.PercentKind().parse(text)


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
