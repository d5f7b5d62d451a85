from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.classification import masking
from proxy.classification.masking import Field, Masked, Masking, cut
from proxy.classification.secrets import names_a_secret
from proxy.matchers import Pattern

BLOCK = "-----BEGIN RSA PRIVATE KEY-----\nMIIE\nowIB\n-----END RSA PRIVATE KEY-----"
BASIC = base64.b64encode(b"ada:lovelace").decode()


def mask(*texts: str, shared: bool = False, **how) -> Masked:
    return Masking(**how).mask([Field(text, shared=shared) for text in texts])


def masked(text: str, **how) -> str:
    return mask(text, **how).texts[0]


SECRETS = [
    pytest.param(f"key: {BLOCK} end", "key: SECRET_1 end", id="a PEM block"),
    pytest.param(BLOCK[:50], "SECRET_1", id="half a PEM block"),
    pytest.param("{" + BLOCK.replace("\n", "\\n") + "}", "{SECRET_1}", id="a PEM block with its line feeds escaped"),
    pytest.param("got eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", "got SECRET_1", id="a JWT"),
    pytest.param("got eyJhbGciOiJIUzI1NiJ9.eyJzd", "got SECRET_1", id="half a JWT"),
    pytest.param("AKIAIOSFODNN7EXAMPLE denied", "SECRET_1 denied", id="an AWS key id"),
    pytest.param("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "SECRET_1", id="an AWS key"),
    pytest.param("key AIzaSyA-0123456789abcdefghijklmnopqrst", "key SECRET_1", id="a key of Google"),
    pytest.param("ya29.a0AfH6SMBx-0123456789", "SECRET_1", id="a token of Google"),
    pytest.param("ghp_0123456789abcdefghij in CI", "SECRET_1 in CI", id="a token of GitHub"),
    pytest.param("github_pat_11AAAAAAA0123456789_abc", "SECRET_1", id="a fine-grained token of GitHub"),
    pytest.param("glpat-0123456789abcdefghij", "SECRET_1", id="a token of GitLab"),
    pytest.param("xoxb-0123456789-abcdef", "SECRET_1", id="a token of Slack"),
    pytest.param(
        "https://hooks.slack.com/services/T0/B0/xyz", "https://hooks.slack.com/services/SECRET_1", id="a hook of Slack"
    ),
    pytest.param("sk" + "_live_0123456789abcdef", "SECRET_1", id="a key of Stripe"),
    pytest.param("sk-proj-abcdefghijkl", "SECRET_1", id="a key of OpenAI"),
    pytest.param("sk-ant-api03-abc_def-ghi", "SECRET_1", id="a key of Anthropic"),
    pytest.param("hvs.CAESIJ0123456789abcdef", "SECRET_1", id="a token of Vault"),
    pytest.param("password=hunter2", "password=SECRET_1", id="password="),
    pytest.param("DB_PASSWORD = hunter2", "DB_PASSWORD = SECRET_1", id="in a variable"),
    pytest.param("spring.datasource.password: hunter2", "spring.datasource.password: SECRET_1", id="in a property"),
    pytest.param('{"password":"hun ter2","a":1}', '{"password":"SECRET_1","a":1}', id="in JSON"),
    pytest.param(r"{\"token\":\"hun ter2\"}", r"{\"token\":\"SECRET_1\"}", id="in JSON in JSON"),
    pytest.param("secret='hun ter2' x", "secret='SECRET_1' x", id="in quotes"),
    pytest.param('api_key="hun ter2', 'api_key="SECRET_1', id="in quotes that do not close"),
    pytest.param("<password>hunter2</password>", "<password>SECRET_1</password>", id="in XML"),
    pytest.param("/x?access_token=hunter2", "/x?access_token=SECRET_1", id="in a query"),
    pytest.param("x%26token%3Dhunter2", "x%26token%3DSECRET_1", id="in a query in a query"),
    pytest.param("mysql --password hunter2 -h db", "mysql --password SECRET_1 -h db", id="as an argument"),
    pytest.param("curl -u ada:hunter2 x", "curl -u SECRET_1 x", id="as an argument of curl"),
    pytest.param("the password 'hunter2' is old", "the password 'SECRET_1' is old", id="in a sentence"),
    pytest.param("Authorization: Bearer abcdef", "Authorization: Bearer SECRET_1", id="a bearer's header"),
    pytest.param("authorization: hunter2", "authorization: SECRET_1", id="a header of no scheme"),
    pytest.param('Authorization: Digest username="a", x="b"', 'Authorization: SECRET_1"', id="a header of many parts"),
    pytest.param("sent bearer abcdef123", "sent bearer SECRET_1", id="a bearer's token"),
    pytest.param(f"sent Basic {BASIC}", "sent Basic SECRET_1", id="a user and a password in base64"),
    pytest.param("Cookie: sid=1; theme=dark", "Cookie: SECRET_1", id="a cookie"),
    pytest.param("postgres://ada:love@db/x", "postgres://SECRET_1@db/x", id="in an address"),
    pytest.param("postgres://ada:l/o@v#e@db/x", "postgres://SECRET_1@db/x", id="in an address, unescaped"),
    pytest.param("https://token@github.com/x", "https://SECRET_1@github.com/x", id="without a password"),
    pytest.param("is q8Zt3LmPw2XkV9bRs5Yd?", "is SECRET_1?", id="a random string"),
    pytest.param("/a/long/way/to/q8Zt3LmPw2XkV9bRs5Yd/x", "/a/long/way/to/SECRET_1/x", id="a random string in a path"),
    pytest.param("k3j4h5kj34h5zj34h5k34jh5q7w8e9r0t1", "SECRET_1", id="a long random string without capitals"),
]
ADDRESSES = [
    pytest.param("10.0.0.7:9100 is down", "IP_1:9100 is down", id="IPv4, its port stays"),
    pytest.param("10.0.0.0/8, 10.0.0.0", "IP_1/8, IP_1", id="a network"),
    pytest.param("node_10.0.0.7_x", "node_IP_1_x", id="in a name"),
    pytest.param("ip-10-0-3-17.ec2.internal", "IP_1.ec2.internal", id="in the name of a node"),
    pytest.param("[2001:db8::1]:9100", "[IP_1]:9100", id="IPv6 with its port"),
    pytest.param("fe80::1: unreachable", "IP_1: unreachable", id="IPv6 before a colon"),
    pytest.param("addr:fe80::1", "addr:IP_1", id="IPv6 behind a colon"),
    pytest.param("::ffff:10.0.0.7", "IP_1", id="IPv4 in IPv6"),
    pytest.param("2001:db8:0:0:0:0:0:1", "IP_1", id="IPv6 in full"),
    pytest.param("00:1A:2b:3c:4d:5e or 001a.2b3c.4d5e", "MAC_1 or MAC_2", id="MAC"),
    pytest.param("ada@example.com, ada@example.com", "EMAIL_1, EMAIL_1", id="e-mail"),
    pytest.param("mailto=jörg%40example.com", "mailto=EMAIL_1", id="e-mail in a query"),
]
KEPT = [
    "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "commit e368cfc4a1b2c3d4e5f60718293a4b5c6d7e8f90",
    "550e8400-e29b-41d4-a716-446655440000",
    "api-7d9f8b6c5d-x2x7z",
    "KubePersistentVolumeFillingUpIn4DaysOnNode2",
    "Http5xxAnd4xxErrorRateTooHigh",
    "/var/lib/kubelet/pods/volumes/kubernetes.io~csi/mount",
    "node_filesystem_avail_bytes / node_filesystem_size_bytes < 0.05",
    "token: expired, password: wrong and secret: not found",
    "max_tokens=400, password_file=/run/x, secretName: tls",
    "version v1.2.3.4 of 1.3.6.1.4.1.9, 300.1.2.3",
    "std::vector at 12:34:56 on 2026-11-22T10:20:30Z",
    "user@1000.service failed, root@localhost",
    "https://wiki.example/runbook@latest?x=a:b@c",
    "basic authentication and bearer authentication failed",
    "",
]


@pytest.mark.parametrize(("text", "leaves"), SECRETS)
def test_a_secret_is_masked_and_never_comes_back(text: str, leaves: str):
    found = mask(text, shared=True)
    assert found.texts == (leaves,)
    assert found.restore("SECRET_1") == "[masked]"


@pytest.mark.parametrize(("text", "leaves"), ADDRESSES)
def test_an_address_is_masked_and_comes_back_where_the_class_has_it(text: str, leaves: str):
    found = mask(text, shared=True)
    assert found.texts == (leaves,)
    assert found.restore(leaves) == text
    assert found.restore("IP_8 MAC_8 EMAIL_8") == "an IP address a MAC address an e-mail address"


@pytest.mark.parametrize("text", KEPT)
def test_what_is_no_secret_and_no_address_stays(text: str):
    assert masked(text) == text


@pytest.mark.parametrize(
    ("text", "leaves"),
    [
        ("db-7.eu.example.com:5432", "HOST_1:5432"),
        ("https://intranet/x", "https://HOST_1/x"),
        ("https://wiki.corp/x", "https://HOST_1/x"),
        ("config.yaml of java.lang.NullPointerException, user@1.service", "="),
    ],
)
def test_hosts_are_masked_when_asked_for(text: str, leaves: str):
    assert masked(text) == text
    assert masked(text, hosts=True) == (text if leaves == "=" else leaves)


def test_patterns_of_ones_own_are_masked_and_never_come_back():
    found = mask("cust-77 is customer=acme", shared=True, patterns=["cust-[0-9]+", r"customer=(\w+)"])
    assert found.texts == ("PRIVATE_1 is customer=PRIVATE_2",)
    assert found.restore("PRIVATE_1") == "[masked]"


def test_a_pattern_of_ones_own_looks_at_short_words_too():
    assert masked("acme", patterns=["acme"]) == "PRIVATE_1"


def test_switched_off_all_leaves_and_nothing_is_restored():
    found = mask("password=hunter2 at 10.0.0.7", "x" * 10_000, enabled=False)
    assert found.texts == ("password=hunter2 at 10.0.0.7", "x" * masking.LOOKED_AT)
    assert found.restore("IP_1") == "IP_1"


def test_a_value_has_one_placeholder_in_all_texts():
    found = mask("10.0.0.7", "at 10.0.0.7 and 10.0.0.8", "10.0.0.8")
    assert found.texts == ("IP_1", "at IP_1 and IP_2", "IP_2")
    assert found.counts == {"IP": 2}


def test_a_secret_that_one_text_gives_away_is_masked_in_all_but_the_telling_ones():
    fields = [Field("hunter2", telling=True), Field("it was hunter2!"), Field("password=hunter2")]
    assert Masking().mask(fields).texts == ("hunter2", "it was SECRET_1!", "password=SECRET_1")


def test_a_short_secret_is_masked_only_where_its_name_is():
    assert mask("a bit", "pwd=bit").texts == ("a bit", "pwd=SECRET_1")


def test_a_field_that_is_a_secret_is_masked_whole():
    assert Masking().mask([Field("a b", secret=True), Field("", secret=True)]).texts == ("SECRET_1", "")


def test_an_address_behind_letters_is_masked_and_stays_so():
    found = mask("srv10.0.0.7", shared=True)
    assert found.texts == ("srvIP_1",)
    assert found.restore("srvIP_1") == "srvIP_1"


def test_what_overlaps_is_masked_as_one():
    assert masked("token=10.0.0.7,ada@example.com x") == "token=SECRET_1 x"


def test_a_forged_placeholder_hides_no_address():
    assert masked("IP_10.0.0.7 and IP_1.password=hunter2") == "IP_IP_2 and IP_1.password=SECRET_1"


def test_placeholders_of_the_alert_itself_are_not_given_out():
    found = mask("IP_1 and IP_3", "10.0.0.7 and 10.0.0.8")
    assert found.texts == ("IP_1 and IP_3", "IP_2 and IP_4")


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("IP_1 is down", "10.0.0.7 is down"),
        ("IP\\_1:9100 is down", "10.0.0.7:9100 is down"),
        ("IP_2:9100 is down", "an IP address is down"),
        ("IP_9/24 is down", "an IP address is down"),
        ("ask EMAIL_1", "ask an e-mail address"),
        ("IP_1…", "an IP address…"),
        ("IP_10, IP_01", "an IP address, an IP address"),
        ("SKIP_1 and IP_x", "SKIP_1 and IP_x"),
    ],
)
def test_only_what_the_class_shares_is_put_back(said: str, read: str):
    fields = [Field("10.0.0.7", shared=True), Field("10.0.0.8 and 10.0.0.7 of ada@example.com")]
    assert Masking().mask(fields).restore(said) == read


@pytest.mark.parametrize(
    "name",
    [
        *("password", "db_password", "DB-PASSWORD", "dbPassword", "smtppassword", "passwordHash", "password_file"),
        *("password2", "pass", "db.pass", "githubToken", "access_token_1", "apiKey", "mySessionKey", "clientSecret"),
    ],
)
def test_the_name_of_a_label_says_that_its_value_is_a_secret(name: str):
    assert names_a_secret(name)


@pytest.mark.parametrize("name", ["keyboard", "bypass", "compass", "monkey", "tokenizer", "passenger", "key", "design"])
def test_a_name_that_only_looks_like_one_does_not(name: str):
    assert not names_a_secret(name)


def test_a_cut_never_leaves_part_of_a_placeholder():
    text = "at IP_12 there"
    assert [cut(text, length) for length in (5, 8, 9, 13, 14)] == ["at …", "at …", "at IP_12…", "at IP_12 the…", text]


@pytest.mark.parametrize("before", [0, 400, 480, 495, 2000, 2030, 2047])
@pytest.mark.parametrize("secret", ["password=" + "hunter2!" * 5, BLOCK, "q8Zt3LmPw2XkV9bRs5Yd" * 9], ids=len)
def test_no_half_of_a_secret_leaves_wherever_the_cut_is(before: int, secret: str):
    left = masked("a " * (before // 2) + secret + " behind" * 2000)
    assert len(left) < masking.LOOKED_AT + 20
    for known in ("hunter2", "MIIE", "PRIVATE KEY", "q8Zt3", "LmPw2"):
        assert known not in left


def test_what_begins_within_the_bound_is_known_by_what_stands_behind_it():
    assert masked("x " * 1021 + "AKIAIOSFODNN7EXAMPLE and more").endswith("x SECRET_1")


WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="_:@"), max_size=12)
PARTS = st.sampled_from([
    "10.0.0.7", "fe80::1", "a@b.example", "password=hunter2", "token: x1", '{"secret":"x y"}', "IP_1", "SECRET_3",
    "https://a:b@c.example/x", "00:1A:2b:3c:4d:5e", "q8Zt3LmPw2XkV9bRs5Yd", "Authorization: Bearer abcdef1",
])  # fmt: skip


@given(st.lists(st.lists(WORDS | PARTS, max_size=6).map(" ".join), max_size=4))
@settings(max_examples=200, deadline=None)
def test_masking_is_deterministic_and_finds_nothing_more_in_what_it_left(texts: list[str]):
    once = mask(*texts)
    assert once == mask(*texts)
    assert mask(*once.texts).texts == once.texts


@given(st.text())
def test_any_answer_can_be_restored(said: str):
    mask("10.0.0.7").restore(said)


def test_no_text_is_looked_at_beyond_its_bound(monkeypatch: pytest.MonkeyPatch):
    looked_at = []
    spans = Pattern.spans
    monkeypatch.setattr(Pattern, "spans", lambda self, text: looked_at.append(len(text)) or spans(self, text))
    left = masked("1.1.1.1 a@b.c password=x " * 40_000, patterns=["x+"])
    assert max(looked_at) <= 4000
    assert len(left) <= 2 * masking.LOOKED_AT


def test_of_too_much_text_what_does_not_fit_in_any_more_does_not_leave_and_nothing_is_cut_in_two():
    long = "word " * 600
    *left, behind, small = mask(*[long] * 5, "password=hunter2 " * 120, "small").texts
    assert left == [long[: masking.LOOKED_AT]] * 5
    assert behind == "…"
    assert small == "small"
    assert masking.IN_ALL - 5 * len(long) < len("password=hunter2 " * 120)


def test_a_secret_is_found_again_that_was_part_of_a_longer_one():
    user = "2222222222222A2A2Aa2*222222"
    assert mask(f"postgres://{user}:x@db", f"the {user} alone").texts == ("postgres:SECRET_1@db", "the SECRET_2 alone")


def test_the_version_changes_with_what_is_masked():
    versions = [
        Masking().version,
        Masking(enabled=False).version,
        Masking(hosts=True).version,
        Masking(patterns=["a"]).version,
        Masking(patterns=["b"]).version,
    ]
    assert len(set(versions)) == len(versions)
    assert Masking().version == versions[0]
