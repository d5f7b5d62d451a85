"""How what arrived, or was answered, differs from what it would be without the proxy."""

from __future__ import annotations

import re
from collections.abc import Iterable

from fidelity import Case, Why
from fidelity_wire import Exchange, Headers, Message


def found_in_request(raw: bytes, got: Message, host: bytes) -> set[Why | str]:
    """Return how what arrived differs from what was sent; a text for what has no name."""
    head, _, body = raw.partition(b"\r\n\r\n")
    while head.startswith(b"\r\n"):
        head = head[2:]
    line, *lines = head.split(b"\r\n")
    sent = [(name, value) for name, _, value in (each.partition(b":") for each in lines)]
    found: set[Why | str] = set()
    if head != raw.partition(b"\r\n\r\n")[0] or line.count(b" ") > 2:
        found.add(Why.TOLERATED)
        line = re.sub(rb" +", b" ", line)
    if line.endswith(b"/1.0"):
        found.add(Why.VERSION)
        line = line[:-1] + b"1"
    if b" http://" in line or b" https://" in line:
        found.add(Why.TARGET)
        line = re.sub(rb" https?://[^/? ]+/?", b" /", line)
    if line != got.line:
        found.add(f"the line: {got.line[:200]!r}")
    if any(value not in (v := b" " + value.strip(b" \t"), b"") and value != v for _, value in sent):
        found.add(Why.SPACE)
    expected = [(name, value.strip(b" \t")) for name, value in sent]
    expected, dropped = _end_to_end(expected)
    if dropped:
        found.add(Why.HOP)
    chunked = any(name.lower() == b"transfer-encoding" for name, _ in expected)
    if chunked and b"/api/v2/alerts" in got.line:
        found.add(Why.ALERTS)
        expected = [(n, v) for n, v in expected if n.lower() != b"transfer-encoding"]
        expected.append((b"Content-Length", b"%d" % len(got.body)))
    elif chunked:
        found.add(Why.CHUNKS)
        plain = [
            (b"Transfer-Encoding", b"chunked") if n.lower() == b"transfer-encoding" else (n, v) for n, v in expected
        ]
        if any(n.lower() == b"transfer-encoding" and v != b"chunked" for n, v in expected):
            found.add(Why.CODING)
        expected = plain
    if any(name.lower() == b"expect" and b"100-continue" in value.lower().split(b",") for name, value in expected):
        found.add(Why.EXPECT)
        expected = [(n, v) for n, v in expected if n.lower() != b"expect"]
    if not any(name.lower() == b"host" for name, _ in expected):
        found.add(Why.HOST)
        expected.insert(0, (b"Host", host))
    if expected != got.headers:
        found.add(f"headers: {got.headers!r} for {expected!r}"[:2000])
    if (chunked and _dechunked(body) != got.body) or (not chunked and body != got.body):
        found.add(f"the body: {got.body[:100]!r}")
    return found


def _end_to_end(headers: Headers) -> tuple[Headers, bool]:
    """Return what may be passed on, and whether that is not all."""
    one = {b"connection", b"keep-alive", b"te", b"trailer", b"upgrade", b"proxy-authorization", b"proxy-connection"}
    for_all = {b"host", b"authorization", b"content-type", b"content-length", b"transfer-encoding"}
    named = {token.strip().lower() for n, v in headers if n.lower() == b"connection" for token in v.split(b",")}
    kept = [(n, v) for n, v in headers if n.lower() not in one | (named - for_all)]
    return kept, kept != headers


def _dechunked(raw: bytes) -> bytes:
    body = b""
    while True:
        length, _, raw = raw.partition(b"\r\n")
        if not (size := int(length.split(b";")[0], 16)):
            return body
        body, raw = body + raw[:size], raw[size + 2 :]


VOLATILE = re.compile(
    rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:\d\d)"
)


def found_in_answer(case: Case, direct: Exchange | None, proxied: Exchange) -> set[Why | str]:
    """Return how the proxy's answer differs from Alertmanager's own; a text for what has no name.

    `direct` may be None for what is refused.
    """
    found: set[Why | str] = set()
    if case.refused and proxied.answer is not None:
        return {*case.answered, *_of_ours(proxied)}
    if direct is None or direct.answer is None or proxied.answer is None:
        return {f"no answer: {direct} {proxied}"}
    theirs, ours = direct.answer, proxied.answer
    if Why.TARGET in case.by_version:
        return {Why.TARGET} if theirs.body != ours.body else found
    if Why.TOLERATED in case.answered:
        return {Why.TOLERATED} if (theirs.status, ours.status) == (400, 200) else {"not tolerated"}
    if theirs.interim != ours.interim:
        found.add(Why.CONTINUED if (theirs.interim, len(ours.interim)) == ([], 1) else f"interim: {ours.interim}")
    if (not direct.goes_on and proxied.goes_on) or theirs.framed == "close" != ours.framed:
        found.add(Why.CLOSING)
    elif direct.goes_on != proxied.goes_on:
        ends = any(word in case.raw.lower() for word in (b"chunked", b"\r\nupgrade: "))
        said = ours.headers[-1] == (b"Connection", b"close")
        found.add(Why.ENDING if ends and said else "the connection is closed")
    # HTTP/1.0 knows no chunks: both sides end what has no length with the connection.
    if theirs.framed != ours.framed and not (theirs.framed == "close" and ours.framed == "chunked"):
        found.add(f"framed: {theirs.framed} {ours.framed}")
    if b"/1.0" in case.raw and theirs.framed == "close" and theirs.line == ours.line.replace(b"/1.0", b"/1.1"):
        found.add(Why.CLOSING)  # its refusals are HTTP/1.1 whatever the request was
    elif theirs.line != ours.line:
        found.add(f"the line: {theirs.line!r} {ours.line!r}")
    pair = [
        list(_headers(case, message, closing=bool(found & {Why.CLOSING, Why.ENDING}))) for message in (theirs, ours)
    ]
    if pair[0] != pair[1]:
        found.add(f"headers: {pair}"[:2000])
    bodies = [_body(case, message) for message in (theirs, ours)]
    if bodies[0] != bodies[1]:
        found.add(f"the body: {[body[:300] for body in bodies]!r}")
    return found


def _of_ours(proxied: Exchange) -> set[str]:
    """Return what is wrong with a refusal of the proxy's own."""
    answer = proxied.answer
    assert answer is not None
    said = answer.status in (400, 405, 431, 501, 505) and answer.body.startswith(b"alertmanager-ai-proxy: ")
    names = [name for name, _ in answer.headers]
    plain = names == [b"Content-Type", b"X-Content-Type-Options", b"Content-Length", b"Connection"]
    fine = said and plain and answer.line.startswith(b"HTTP/1.1 ") and not proxied.goes_on
    return set() if fine else {f"refused otherwise: {answer}"}


def _live(case: Case) -> bool:
    return b"/metrics" in case.raw[:60] or b"/debug" in case.raw[:60]


def _headers(case: Case, message: Message, *, closing: bool) -> Iterable[tuple[bytes, bytes]]:
    for name, value in message.headers:
        if name == b"Date":
            value = b"then"
        if name == b"Allow":  # Alertmanager's own order is random
            value = b",".join(sorted(value.replace(b" ", b"").split(b",")))
        if name == b"Content-Length" and _live(case):
            continue
        if closing and name in (b"Connection", b"Transfer-Encoding"):
            continue
        yield name, value


def _body(case: Case, message: Message) -> bytes:
    if _live(case):
        return b"its figures change"
    if b"405" in message.line and b"not allowed" in message.body:
        return bytes(sorted(message.body))  # the order of the methods in it is random
    return VOLATILE.sub(b"then", message.body)
