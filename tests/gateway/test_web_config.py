"""The file that says how a listener takes clients in; what real Alertmanagers say of each is in the e2e tests."""

from __future__ import annotations

import contextlib
import ssl
from pathlib import Path

import pytest
from web_configs import EXAMPLES, Example, certificates

from proxy.errors import ConfigError
from proxy.gateway.server_tls import has_name, server_context
from proxy.gateway.web_config import WebConfig, read


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("doors")
    certificates(made)
    return made


def used(example: Example, directory: Path) -> tuple[WebConfig, ssl.SSLContext | None]:
    config = read(example.put(directory))
    return config, server_context(config.tls) if config.tls else None


@pytest.mark.parametrize("example", [one for one in EXAMPLES if one.kind == "good"], ids=str)
def test_what_is_good_can_be_used(example: Example, directory: Path):
    config, context = used(example, directory)
    assert (context is not None) is (example.put(directory).read_text().count("key") > 0)
    assert bool(config.users) is ("users" in str(example))


@pytest.mark.parametrize("example", [one for one in EXAMPLES if one.kind != "good"], ids=str)
def test_what_is_not_is_told(example: Example, directory: Path):
    with pytest.raises((ConfigError, ValueError)) as told:
        used(example, directory)
    assert example.says in str(told.value)
    assert "hunter2" not in str(told.value)


def example(name: str) -> Example:
    return next(one for one in EXAMPLES if str(one) == name)


def test_files_are_beside_the_one_that_names_them(directory: Path):
    tls = used(example("clients_verified.good"), directory)[0].tls
    assert tls
    assert tls.files == tuple(directory / name for name in ("server.pem", "server.key", "ca.pem"))


def test_tls_is_spoken_as_it_says(directory: Path):
    def context(name: str) -> ssl.SSLContext:
        found = used(example(name), directory)[1]
        assert found
        return found

    assert context("tls.good").minimum_version is ssl.TLSVersion.TLSv1_2
    assert context("tls.good").options & ssl.OP_CIPHER_SERVER_PREFERENCE
    assert not context("versions.good").options & ssl.OP_CIPHER_SERVER_PREFERENCE
    assert context("only_tls13.good").minimum_version is ssl.TLSVersion.TLSv1_3
    assert context("suites_of_tls13.good").minimum_version is ssl.TLSVersion.TLSv1_3
    offered = {one["name"] for one in context("suites.good").get_ciphers() if one["protocol"] == "TLSv1.2"}
    assert offered == {"ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"}
    assert context("clients_verified.good").verify_mode is ssl.CERT_REQUIRED
    assert context("clients_verified_if_given.good").verify_mode is ssl.CERT_OPTIONAL
    assert context("clients_asked_in_vain.good").verify_mode is ssl.CERT_NONE


def agreed(server: ssl.SSLContext, client: ssl.SSLContext) -> ssl.SSLObject:
    """Return the client's end of a handshake. Raises SSLError where there is none."""
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(to_client, to_server), server.wrap_bio(to_server, to_client, server_side=True)]
    for _ in range(3):
        for end in ends:
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    return ends[0]


def test_the_one_curve_that_is_named_is_agreed_on_and_no_other(directory: Path):
    server = used(example("curve.good"), directory)[1]
    assert server
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    assert agreed(server, client).version() == "TLSv1.3"
    client.set_ecdh_curve("prime256v1")
    with pytest.raises(ssl.SSLError):
        agreed(server, client)


def test_a_client_that_would_speak_http2_hears_that_it_is_http1(directory: Path):
    server = used(example("tls.good"), directory)[1]
    assert server
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.set_alpn_protocols(["h2", "http/1.1"])
    assert agreed(server, client).selected_alpn_protocol() == "http/1.1"


@pytest.mark.parametrize(
    ("name", "authenticates"),
    [
        ("tls.good", False),
        ("clients_verified_if_given.good", False),
        ("headers.good", False),
        ("users_without_tls.good", True),
        ("clients_verified.good", True),
    ],
)
def test_who_lets_in_the_unknown(name: str, authenticates: bool, directory: Path):
    assert bool(used(example(name), directory)[0].asks_for) is authenticates


def test_neither_keys_nor_hashes_are_in_what_is_printed(directory: Path):
    for name in ("tls_as_text.good", "users.good"):
        shown = repr(used(example(name), directory)[0])
        assert "PRIVATE" not in shown
        assert "$2b$" not in shown


def test_a_certificate_has_the_name_of_an_address_however_it_is_written():
    shown = {
        "subjectAltName": (("DNS", "a.example"), ("IP Address", "2001:DB8:0:0:0:0:0:1\n"), ("URI", "spiffe://a/b"))
    }
    assert has_name(shown, frozenset({"2001:db8::1"}))
    assert has_name(shown, frozenset({"x", "spiffe://a/b"}))
    assert not has_name(shown, frozenset({"example", "*.example", "2001:DB8:0:0:0:0:0:1"}))
    assert not has_name({}, frozenset({"a.example"}))


def test_every_mistake_is_told_with_its_line(tmp_path: Path):
    file = tmp_path / "web.yml"
    file.write_text("tls_server_config:\n  cert_file: a\n  min_version: SSL3\nbasic_auth_users:\n  ada: {}\n")
    with pytest.raises(ConfigError) as told:
        read(file)
    assert [problem.removeprefix(str(file)).split(":")[1] for problem in told.value.problems] == ["2", "3", "5"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("basic_auth_users: {ada: %s, ada: %s}", "this user is given twice"),
        ('http_server_config: {headers: {X-XSS-Protection: "1\\nX: 2"}}', "no header can have"),
        (
            "tls_server_config: {cert: a, key: b, cipher_suites: [TLS_AES_128_GCM_SHA256], max_version: TLS12}",
            "none of TLS 1.2, and max_version is TLS12",
        ),
    ],
)
def test_what_would_be_something_else_is_told(text: str, says: str, tmp_path: Path):
    file = tmp_path / "web.yml"
    file.write_text(text.replace("%s", "$2b$04$3EF6b/1GMxMfooasoqSCP.GEsYuHGoNTLm9c/rABm8AmElf8favj."))
    with pytest.raises(ConfigError, match=says):
        read(file)


@pytest.mark.parametrize("content", [None, b"\xff"], ids=["not there", "not a text"])
def test_a_file_that_cannot_be_read_is_told(content: bytes | None, tmp_path: Path):
    file = tmp_path / "web.yml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be read"):
        read(file)
