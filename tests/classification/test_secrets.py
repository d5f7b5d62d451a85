"""Where settings, manifests, logs and commands write secrets, and what only looks like one."""

from __future__ import annotations

import pytest

from proxy.classification.masking import Field, Masking
from proxy.classification.secrets import names_a_secret

S = "SECRET_1"


def masked(text: str) -> str:
    return Masking().mask([Field(text)]).texts[0]


# Each with what leaves.
NESTED = [
    ('{"credentials": {"password": "hunter2xyz"}}', f'{{"credentials": {{"password": "{S}"}}}}'),
    ('{"secret":{"token":"hunter2xyz","b":[]}}', f'{{"secret":{{"token":"{S}","b":[]}}}}'),
    (r"{\"secret\": {\"token\": \"hunter2xyz\"}}", rf"{{\"secret\": {{\"token\": \"{S}\"}}}}"),
    (r"{\"token\": \"a\\\"b\", \"c\": 1}", rf"{{\"token\": \"{S}\", \"c\": 1}}"),
    ('{"passwords": ["hunter2xyz", "lovelace9"], "x": "y"}', f'{{"passwords": ["{S}", "SECRET_2"], "x": "y"}}'),
    ("secret: {token: hunter2xyz }", f"secret: {{token: {S} }}"),
    ("token: [hunter2xyz, lovelace9] x", f"token: [{S}, SECRET_2] x"),
    ('{"passwords": {"ada": "hunter2xyz"}, "x": "y"}', f'{{"passwords": {{"ada": "{S}"}}, "x": "y"}}'),
    ("credentials: {user: ada, other: hunter2xyz}", f"credentials: {{user: ada, other: {S}}}"),
    ('{"secret": {"name": "tls", "type": "Opaque", "x": {"y": "hunter2xyz"}}}', "… {S}"),
    ("%22secret%22%3A%7B%22x%22%3A%22hunter2xyz%22%7D", f"%22secret%22%3A%7B%22x%22%3A%22{S}%22%7D"),
    ("credentials: password: hunter2xyz", f"credentials: password: {S}"),
    ("credentials: password = hunter2xyz", f"credentials: password = {S}"),
    ("credentials: db: hunter2xyz", f"credentials: {S}: SECRET_2"),
    ("secret: {token: hunter2xyz} token: {x: lovelace9}", f"secret: {{token: {S}}} token: {{x: SECRET_2}}"),
]
BLOCKS = [
    ("credentials:\n  password: hunter2xyz", f"credentials:\n  password: {S}"),
    ("credentials:\n  user: ada\n  db: hunter2xyz\nhost: db-1", f"credentials:\n  user: ada\n  db: {S}\nhost: db-1"),
    ("a:\n  passwords:\n  - hunter2xyz\n  b: c", f"a:\n  passwords:\n  - {S}\n  b: c"),
    ("passwords:\n  - [hunter2xyz]\n  - name: a\n", f"passwords:\n  - [{S}]\n  - name: a\n"),
    ("secret:\n  a: |\n    hunter2xyz and more\n  b: lovelace9", f"secret:\n  a: |\n    {S}\n  b: SECRET_2"),
    ("password: |\n  hunter2xyz\n  more\nhost: x", f"password: |\n  {S}\nhost: x"),
    ("password: |-\r\n  hunter2xyz\r\nhost: x", f"password: |-\r\n  {S}\r\nhost: x"),
    ("password: >\n  hunter2xyz\n\n  more\n", f"password: >\n  {S}\n"),
    ("password: >-\n  hunter2xyz", f"password: >-\n  {S}"),
    ("password: |2 # is\n  hunter2xyz", f"password: |2 # is\n  {S}"),
    ("password:\nhunter2xyz", f"password:\n{S}"),
    ("password: |\nhost: x", "password: |\nhost: x"),
    ("secret:\n  VALUE = 5\n  LABELS = x", "secret:\n  VALUE = 5\n  LABELS = x"),
    ("secret:\n  Runbook: x\n  instance: y", "secret:\n  Runbook: x\n  instance: y"),
    ("token:\nInstance: db-1", "token:\nInstance: db-1"),
    ("token:\n  not found, retrying", "token:\n  not found, retrying"),
]
SHORT_NAMES = [
    ("DB_PASS=hunter2xyz failed", f"DB_PASS={S} failed"),
    ("SMTP_PASS: hunter2xyz failed", f"SMTP_PASS: {S} failed"),
    ('{"user":"a","pass": "hunter2xyz"}', f'{{"user":"a","pass": "{S}"}}'),
    ("dbPass=hunter2xyz", f"dbPass={S}"),
    ("db_pass: hunter2xyz", f"db_pass: {S}"),
    ("{user: a, pass: hunter2xyz}", f"{{user: a, pass: {S}}}"),
    ("  pass: hunter2xyz", f"  pass: {S}"),
    ("user=a&pw=hunter2xyz", f"user=a&pw={S}"),
    ("bindPw: hunter2xyz", f"bindPw: {S}"),
    ('"tokens": ["hunter2xyz"]', f'"tokens": ["{S}"]'),
    ("access_tokens: hunter2xyz", f"access_tokens: {S}"),
    ("--pass hunter2xyz --key-pass lovelace9", f"--pass {S} --key-pass SECRET_2"),
    ("password2: hunter2xyz", f"password2: {S}"),
    ("secret_value=hunter2xyz", f"secret_value={S}"),
    ("private_key_pem: hunter2xyz", f"private_key_pem: {S}"),
    ("bindpw=hunter2xyz", f"bindpw={S}"),
    ("ssh_key=hunter2xyz", f"ssh_key={S}"),
]
LOGINS = [
    ("root:hunter2xyz@tcp(10.0.0.1:3306)/app", f"{S}@tcp(IP_1:3306)/app"),
    ("root:h/u@n@(mysql:3306)/app", f"{S}@(mysql:3306)/app"),
    ("app:hunter2xyz@db-1:5432 refused", f"{S}@db-1:5432 refused"),
    ("dsn is app:hunter2xyz@db-1/x", f"dsn is {S}@db-1/x"),
    ("user:hunter2xyz@db-1:5432", f"{S}@db-1:5432"),
    ("//app:hunter2xyz@db/0", f"//{S}@db/0"),
    ("login of scott/hunter2xyz@db failed", f"login of {S}@db failed"),
    ("jdbc:oracle:thin:scott/hunter2xyz@//db-1:1521/x", f"jdbc:oracle:thin:{S}@//db-1:1521/x"),
    ("scott/hunter2xyz@ora-7:1521", f"{S}@ora-7:1521"),
    ("postgres%3A%2F%2Fapp%3Ahunter2xyz%40db%2Fx", f"postgres%3A%2F%2F{S}%40db%2Fx"),
    ("postgres%253a%252f%252fapp%253ahunter2xyz%2540db", f"postgres%253a%252f%252f{S}%2540db"),
    (r"postgres:\u002f\u002fapp:hunter2xyz@db", rf"postgres:\u002f\u002f{S}@db"),
    ("curl -u 'admin:hunter 2' x", f"curl -u '{S}' x"),
    ('curl -u "admin:hunter 2" x', f'curl -u "{S}" x'),
    (r"curl -u \"admin:hunter2xyz\" x", rf"curl -u \"{S}\" x"),
]
HEADERS = [
    ('{"Cookie": "sid=hunter2xyz; b=c"}', f'{{"Cookie": "{S}"}}'),
    ('{"Cookie": ["sid=hunter2xyz"]}', f'{{"Cookie": ["{S}"]}}'),
    ("Cookie: a=hunter2xyz; b=c\nx", f"Cookie: {S}\nx"),
    ("cookie=hunter2xyz x", f"cookie={S} x"),
    *[(f"Authorization: {scheme} hunter2xyz", f"Authorization: {scheme} {S}") for scheme in (
        "GenieKey", "SSWS", "Splunk", "ApiKey", "Token", "Api-Key")],
    ("Authorization: Whatever hunter2xyz x", f"Authorization: {S} SECRET_2 x"),
    ('"Authorization": ["Whatever hunter2xyz"]', f'"Authorization": ["{S} SECRET_2"]'),
    ("Authorization: hunter2xyz at those gates", f"Authorization: {S} at those gates"),
    ("Authorization: hunter2xyz gates are", f"Authorization: {S} gates are"),
    ("Authorization: hunter2xyz was refused", f"Authorization: {S} was refused"),
]  # fmt: skip
PAIRS = [
    ('{"name": "DB_PASSWORD", "value": "hunter2xyz"}', f'{{"name": "DB_PASSWORD", "value": "{S}"}}'),
    ('{"value": "hunter2xyz", "name": "DB_PASSWORD"}', f'{{"value": "{S}", "name": "DB_PASSWORD"}}'),
    (r"{\"name\":\"DB_PASS\",\"value\":\"hunter2xyz\"}", rf"{{\"name\":\"DB_PASS\",\"value\":\"{S}\"}}"),
    ("- name: DB_PASSWORD\n  value: hunter2xyz\n", f"- name: DB_PASSWORD\n  value: {S}\n"),
    ("- value: hunter2xyz\n  name: DB_PASSWORD\n", f"- value: {S}\n  name: DB_PASSWORD\n"),
    ("- name: DB_PASSWORD\n  value: |\n    hunter2xyz\n", f"- name: DB_PASSWORD\n  value: |\n    {S}\n"),
    ('<env name="DB_PASSWORD" value="hunter2xyz"/>', f'<env name="DB_PASSWORD" value="{S}"/>'),
]
QUOTES = [
    ("%22password%22%3A%22hunter2xyz%22%2C", f"%22password%22%3A%22{S}%22%2C"),
    ("password&quot;: &quot;hunter2xyz&quot;", f"password&quot;: &quot;{S}&quot;"),
    ("password&#34;:&#34;hunter 2&#34;", f"password&#34;:&#34;{S}&#34;"),
    (r"password\u0022: \u0022hunter2xyz", rf"password\u0022: \u0022{S}"),
    ('password="hunter2xyz\\\nmore" x', f'password="{S}" x'),
    ("password='it''s hunter2xyz' x", f"password='{S}' x"),
    ("`password`: `hunter2xyz`", f"`password`: `{S}`"),
    ("**password**: hunter2xyz", f"**password**: {S}"),
    ("*Password:* hunter2xyz", f"*Password:* {S}"),
    ("password\u00a0= hunter2xyz", f"password\u00a0= {S}"),
    ("password：hunter2xyz", f"password：{S}"),
    ("&lt;password&gt;hunter2xyz", f"&lt;password&gt;{S}"),
]
KEPT = [
    "repo/name:tag@sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "registry.example:5000/repo/nginx:1.25@sha256:9f86d081884c7d659a2feaa0c55ad015",
    "nginx:1.25@sha256:12345 and npm:module@4/x, tool:3@v1/x",
    "job/name@cluster, node/exporter@eu-1:9100, ns/pod-1@eu-1, actions/checkout@v4, @scope/name@1",
    "checks pass: all of them, tests pass: 3, fail: 1",
    '{"pass": 12, "fail": 3}',
    "pass: 12\nfail: 3",
    "compass: north, bypass=on, two bypasses: none",
    "tokens: 15000, max_tokens: 400, the tokens: input and output",
    "Authorization: failed for pod x, authorization: denied",
    "token: [expired], secret: {not found}, password: true",
    "secret:\n  - not found",
    "pass: ok, pass: on\npass: every one of them",
    "Authorization: missing for them",
    "https%3A%2F%2Fwiki%2Frun%3Ax%40latest",
    "name: token-service, value: 5",
    '{"name": "DB_PASSWORD_FILE", "value": "/run/x"}, {"name": "bypass", "value": "on"}',
    '{"value": "/run/x", "name": "DB_PASSWORD_FILE"}',
    "run --bypass on",
    '{"name": "A", "value": "on"}, {"name": "B"}',
    '{"credentials": {"username": "ada", "namespace": "shop"}}',
    "curl -u ada x, sort -u a b, date -u '+%H:%M'",
]


@pytest.mark.parametrize(
    ("text", "leaves"),
    [
        pytest.param(text, leaves, id=ascii(text))
        for text, leaves in [*NESTED, *BLOCKS, *SHORT_NAMES, *LOGINS, *HEADERS, *PAIRS, *QUOTES]
    ],
)
def test_a_secret_is_masked_where_it_stands(text: str, leaves: str):
    if leaves.startswith("…"):
        leaves = text.replace("hunter2xyz", S)
    assert masked(text) == leaves
    assert masked(leaves) == leaves


@pytest.mark.parametrize("text", KEPT, ids=ascii)
def test_what_is_no_secret_stays(text: str):
    assert masked(text) == text


def test_an_address_of_mail_before_a_port_is_one():
    assert masked("sip:ada@example.com:5060, mailto:ada@example.com/x") == "sip:EMAIL_1:5060, mailto:EMAIL_1/x"


@pytest.mark.parametrize(
    "name",
    [
        *("tokens", "passwords", "accessTokens", "jwt", "userJWT", "private_key_pem", "secret_value", "DBPass"),
        *("bind_pw", "wifiPsk", "ssh_key", "client-key-data", "passwordHash2", "cookies"),
    ],
)
def test_the_name_of_a_label_says_that_its_value_is_a_secret(name: str):
    assert names_a_secret(name)


@pytest.mark.parametrize("name", ["max_tokens", "input_tokens", "compass", "ajwt", "secret_name", "token_type", "cpw"])
def test_a_name_that_only_looks_like_one_does_not(name: str):
    assert not names_a_secret(name)
