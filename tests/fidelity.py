"""Requests of every kind, and what the proxy may do otherwise than Alertmanager asked directly.

Each case names its differences. A difference that is not named fails, and so does a name without its difference.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import product


class Why(StrEnum):
    """The differences there are. Each is the first cell of a row of docs/explanation/fidelity.md."""

    HOP = "headers of one connection are not passed on"
    VERSION = "HTTP/1.0 goes on as HTTP/1.1"
    HOST = "a missing Host is filled in"
    EXPECT = "`Expect: 100-continue` is answered by the proxy"
    TARGET = "the absolute form goes on as the origin form"
    CHUNKS = "chunks are cut anew"
    SPACE = "spaces around a header's value are one"
    ALERTS = "a chunked POST of alerts goes on with its length"
    CODING = "`Transfer-Encoding` is written in one way"
    TOLERATED = "line ends before a request, and several spaces in its first line, are tolerated"
    REFUSED = "what RFC 9112 forbids is refused"
    STRICTER = "what is unusual is refused"
    CLOSING = "the connection stays open behind an error"
    ENDING = "the connection is closed behind a chunked request, and behind one that asks for another protocol"
    CONTINUED = "100 comes although nobody reads on"


Differences = frozenset[Why]
NONE: Differences = frozenset()


@dataclass(frozen=True)
class Case:
    """One request; `sent` are its differences on the way to Alertmanager, `answered` those of its answer."""

    name: str
    raw: bytes
    sent: Differences = NONE
    answered: Differences = NONE
    by_version: Differences = NONE
    """Differences of the answer that one Alertmanager shows and another does not, by the Go it is built with."""

    @property
    def refused(self) -> bool:
        return bool(self.sent & {Why.REFUSED, Why.STRICTER})


def request(
    method: str, target: bytes | str, *lines: bytes | str, body: bytes = b"", version: str = "1.1", host: bool = True
) -> bytes:
    """A request as its bytes; a length is added to a body unless a line says how it ends."""
    given = [line.encode() if isinstance(line, str) else line for line in lines]
    if body and not any(re.match(rb"(?i)(content-length|transfer-encoding)\s*:", line) for line in given):
        given.append(b"Content-Length: %d" % len(body))
    target = target.encode() if isinstance(target, str) else target
    first = method.encode() + b" " + target + b" HTTP/" + version.encode()
    return b"\r\n".join([first, *([b"Host: am.example:9093"] if host else []), *given, b"", b""]) + body


JSON = "Content-Type: application/json"
ALERT = (
    b'[{"labels":{"alertname":"Fidelity","severity":"warning"},"annotations":{"summary":"\xc3\xa9"},'
    b'"startsAt":"2030-01-01T00:00:00.000Z","endsAt":"2035-01-01T00:00:00.000Z"}]'
)
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "LINK")
PATHS = (
    *("/", "/api/v2/status", "/api/v2/silences", "/api/v2/silence/x", "/api/v2/alerts/groups", "/api/v2/receivers"),
    *("/-/healthy", "/-/ready", "/nothing", "/api/v1/alerts", "/api/v1/status", "/script.js", "/favicon.ico"),
)
TARGETS = (
    *("//", "//api/v2/alerts", "/api//v2/status", "/api/v2/status/", "/api/v2/alerts/", "/..", "/../..", "/."),
    *("/a/../-/ready", "/./-/ready", "/%2e%2e/-/ready", "/-%2Fready", "/api%2Fv2%2Fstatus", "/api/v2%2falerts"),
    *("/%41%42", "/%zz", "/%", "/%4", "/a%00b", "/a%0d%0aX-Y:%20z", "/a%20b", "/a+b", "/a;b=c", "/a,b", "/a:b", "/@"),
    *("/a#b", "/-/ready#x", "/#", "/api/v2/status?#x", "/x?a#b?c", "/a\\b", "/a|b", "/a{b}", '/a"b"', "/a'b'", "/a<b>"),
    *("/a^b", "/a`b", "/~", "/$", "/!*()", "/[x]", "/caf%C3%A9", "/%FF", "/" + "a" * 5000, "/?", "/??", "/?a=b?c=d"),
    *("/-/ready?", "/-/ready?&&", "/debug/pprof/cmdline", "/lib/x.css", "/script.js?v=1"),
)
FILTERS = (
    *("filter=alertname=Fidelity", 'filter=alertname="Fidelity"', "filter=alertname%3D%22Fidelity%22"),
    *("filter=alertname=~Fid.*", 'filter=alertname=~"Fid.*|x"', "filter={alertname=~`F`}", "filter=severity!=warning"),
    *('filter={alertname="Fidelity",severity!="x"}', 'filter=alertname!~"a|b"', "filter=a='b'", "filter=%24=%27"),
    *("filter=a=b&filter=c=d", "filter=a=b&filter=a=b", "filter", "filter=", "filter=&filter=", "=x", "&", "a&b=&=c"),
    *("filter=summary=a+b", "filter=summary=a%20b", "filter=a=%2B", "filter=a=%zz", "filter=a=b;c=d", "filter=a[]=1"),
    *("active=true&silenced=false", "active=false&inhibited=false", "active=maybe", "unprocessed=true&active=true"),
    *(
        "receiver=x",
        "receiver=.*",
        "receiver=[",
        "receiver=%5B",
        "x=1&x=2&y=%22%24",
        "filter=a%3D%FF",
        "q=%F0%9F%94%A5",
    ),
    *("filter=a=b#c", "filter=a$b", "filter={a|b}", "filter=a=" + "x" * 9000, "a=" + "%22" * 3000, "?=?", "/?/"),
)
HEADERS = (
    *("Accept: text/html", "Accept: application/json", "Accept: */*", "Accept: image/png;q=0.5", "Accept:"),
    *("Accept-Encoding: gzip", "Accept-Encoding: br", "Accept-Encoding: gzip, br, zstd", "Accept-Encoding: identity"),
    *("Authorization: Basic dTpw", "authorization: Bearer x.y", 'Cookie: a=b; c="d"', "X-Scope-OrgID: tenant|two"),
    *("User-Agent: Grafana/11", "USER-AGENT: x", "uSeR-aGeNt:  y", "X-Forwarded-For: 1.2.3.4, 5.6.7.8"),
    *("X-Forwarded-Proto: https", "X-Real-IP: 1.2.3.4", "Forwarded: for=1.2.3.4", "Via: 1.1 nginx", "X-Request-ID: 1"),
    *("Origin: http://grafana.example", "Referer: http://grafana.example/d/1", "Sec-Fetch-Mode: cors", "DNT: 1"),
    *(
        'If-None-Match: "x"',
        "If-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT",
        "If-Match: *",
        "Cache-Control: no-cache",
    ),
    *("Range: bytes=0-9", "Range: bytes=5-", "Range: bytes=-5", "Range: bytes=9999999-", "Range: bytes=0-1,4-5"),
    *("X-Empty:", 'X-Quote: "a, b"', "X-Comma: a,b,,c", "X-Semi: a;b=c", "X_Under: 1", "X.Dot: 1", "X!#$%&'*+^`|~: 1"),
    *(
        "x-lower: 1",
        "X-UPPER: 1",
        "1: 1",
        "X: a=b: c",
        "traceparent: 00-1-2-01",
        "Content-Type: text/plain",
        "Pragma: x",
    ),
    *("Content-Encoding: gzip", "Content-Length: 0", "Max-Forwards: 0", "X-Long: " + "a" * 100_000, "X-Tab: a\tb"),
    *('ETag: "1"', "Last-Modified: x", "Server: x", "Date: x", "Location: /x", "Set-Cookie: a=b", "Expect-CT: x"),
)
HOP_BY_HOP = (
    *("Connection: keep-alive", "Connection: close", "connection: Keep-Alive", "Keep-Alive: timeout=5", "TE: trailers"),
    *("Proxy-Authorization: Basic eA==", "Proxy-Connection: keep-alive", "Upgrade: h2c", "Trailer: X-T", "TE:"),
    *("Connection: X-Mine\r\nX-Mine: 1", "Connection: close, X-Mine\r\nX-Mine: 1\r\nx-mine: 2", "Connection: ,, ,"),
    *("Connection: Host", "Connection: Content-Type, Authorization\r\nAuthorization: Basic dTpw", "Connection: ,close"),
    *("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: eA==\r\nSec-WebSocket-Version: 13",),
    *("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA", "Connection: Upgrade\r\nUpgrade: x"),
)
BODIES = (b"", b"[]", b"null", b"[", b"{}", b"[null", b'"\xff"', b'[{"LABELS":{}}]', ALERT, b"\x00" * 10, b"\r\n\r\n")
CHUNKED = "Transfer-Encoding: chunked"
TWO = b"2\r\n{}\r\n0\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
SILENCES = "/api/v2/silences"


def cases() -> list[Case]:
    """All of them; their names differ."""
    found = [*plain(), *with_bodies(), *framed(), *between_connections(), *versions(), *malformed(), *unusual()]
    assert len({case.name for case in found}) == len(found)
    return found


def plain() -> Iterator[Case]:
    """What should make no difference whatever."""
    for method, path in product(METHODS, PATHS):
        yield Case(f"{method} {path}", request(method, path))
    for target in TARGETS:
        broken = target in ("/%zz", "/%", "/%4")  # 400 by Go's own hand, which then hangs up
        yield Case(f"target {target[:60]}", request("GET", target), answered=_if(broken, Why.CLOSING))
    for query in FILTERS:
        yield Case(f"query {query[:60]}", request("GET", f"/api/v2/alerts?{query}"))
        yield Case(f"silences {query[:60]}", request("GET", f"/api/v2/silences?{query}"))
    for line in HEADERS:
        yield Case(f"header {line[:60]}", request("GET", "/api/v2/status", line), sent=_if("  " in line, Why.SPACE))
    for name in ("Cookie", "Accept", "X-A", "Authorization", "Origin", "Accept-Encoding"):
        lines = [f"{name}: 1", "X-Between: 2", f"{name.lower()}: 3"]
        yield Case(f"repeated {name}", request("GET", "/api/v2/status", *lines))
    for line in (*HEADERS[5:9], *HEADERS[22:29], "Accept-Encoding: gzip\r\nRange: bytes=0-99"):
        for path in ("/", "/script.js", "/favicon.ico", "/metrics"):
            yield Case(f"{path} with {line[:60]}", request("GET", path, line))
    preflight = (
        "Origin: http://x",
        "Access-Control-Request-Method: POST",
        "Access-Control-Request-Headers: content-type",
    )
    for path in ("/api/v2/alerts", SILENCES, "/api/v2/status", "/-/ready"):
        yield Case(f"preflight {path}", request("OPTIONS", path, *preflight))
    yield Case("OPTIONS of the server", request("OPTIONS", "*"))
    yield Case("bytes that are no UTF-8 in a header", request("GET", "/-/ready", b"X-A: caf\xe9\xff"))
    yield Case("UTF-8 in a header", request("GET", "/-/ready", "X-A: café 🔥"))
    yield Case("900 kB of a header", request("GET", "/-/ready", "X-A: " + "a" * 900_000))
    yield Case("900 kB of a query", request("GET", "/-/ready?" + "a" * 900_000))
    yield Case("100 headers", request("GET", "/-/ready", *(f"X-{n}: {n}" for n in range(100))))
    yield Case(
        "two headers of 700 kB",
        request("GET", "/-/ready", *(f"X-{n}: " + "a" * 700_000 for n in range(2))),
        answered=_why(Why.CLOSING),
    )
    yield Case("a Host further down", request("GET", "/-/ready", "X-A: 1", "Host: b", "X-B: 2", host=False))
    yield Case("an empty Host", request("GET", "/-/ready", "host: ", host=False))
    yield Case("a Host that is none", request("GET", "/-/ready", "Host: a b", host=False), answered=_why(Why.CLOSING))


def with_bodies() -> Iterator[Case]:
    for body, path in product(BODIES, ("/api/v2/alerts", SILENCES, "/api/v1/alerts", "/-/ready")):
        yield Case(f"POST {path} {body[:20]!r}", request("POST", path, JSON, body=body))
    for kind in ("text/plain", "application/json; charset=utf-8", "application/JSON", "application/x-yaml", "", "x"):
        yield Case(f"alerts as {kind}", request("POST", "/api/v2/alerts", f"Content-Type: {kind}", body=b"[]"))
    yield Case("alerts as nothing", request("POST", "/api/v2/alerts", body=b"[]"))
    yield Case("alerts without a length", request("POST", "/api/v2/alerts", JSON))
    yield Case("alerts for text/html", request("POST", "/api/v2/alerts", JSON, "Accept: text/html", body=b"[]"))
    yield Case(
        "alerts that are packed", request("POST", "/api/v2/alerts", JSON, "Content-Encoding: gzip", body=b"\x1f\x8b")
    )
    yield Case(
        "alerts, lower case",
        request("POST", "/api/v2/alerts", "content-length: 2", "content-type: application/json", body=b"[]"),
    )
    yield Case("alerts behind a fragment", request("POST", "/x#/api/v2/alerts", JSON, body=b"[]"))
    yield Case("alerts before a fragment", request("POST", "/api/v2/alerts#x", JSON, body=b"[]"))
    yield Case("alerts and a query", request("POST", '/api/v2/alerts?a=$"&a=%24#', JSON, body=ALERT))
    yield Case("alerts, twice encoded", request("POST", "/api/v2%2Falerts", JSON, body=b"[]"))
    for method in ("GET", "DELETE", "PUT", "PATCH", "OPTIONS"):
        yield Case(f"{method} with a body", request(method, "/api/v2/status", JSON, body=b'{"a":1}'))
    yield Case(
        "3 MB that nobody reads", request("PUT", "/api/v2/status", body=b"a" * 3_000_000), answered=_why(Why.CLOSING)
    )
    yield Case("300 kB of spaces", request("POST", "/api/v2/alerts", JSON, body=b"[" + b" " * 300_000 + b"]"))


def framed() -> Iterator[Case]:
    """Ways to say where a body ends."""
    cut, alerts = _why(Why.CHUNKS), _why(Why.ALERTS)
    for path, why in ((SILENCES, cut), ("/api/v2/alerts", alerts)):
        for name, body in {
            "one chunk": TWO,
            "two chunks": b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n",
            "no chunk": b"0\r\n\r\n",
            "an extension": b'2;a=b;c="d"\r\n{}\r\n0;x\r\n\r\n',
            "leading zeros": b"0002\r\n{}\r\n000\r\n\r\n",
            "an upper case length": b"A\r\n{        }\r\n0\r\n\r\n",
            "a trailer": b"2\r\n{}\r\n0\r\nX-T: 1\r\n\r\n",
            "two trailers": b"2\r\n{}\r\n0\r\nX-T: 1\r\nAuthorization: Basic dTpw\r\n\r\n",
            "a trailer that is a Host": b"2\r\n{}\r\n0\r\nHost: y\r\n\r\n",
        }.items():
            raw = request("POST", path, JSON, CHUNKED, "X-A: 1", body=body)
            if path == SILENCES or name != "no chunk":
                yield Case(f"chunked {path}: {name}", raw, sent=why, answered=_why(Why.ENDING))
    yield Case(
        "chunked, not in lower case",
        request("POST", SILENCES, JSON, "TRANSFER-encoding: CHUNKED", body=TWO),
        sent=cut | {Why.CODING},
        answered=_why(Why.ENDING),
    )
    expect = "Expect: 100-continue"
    for path in (SILENCES, "/api/v2/alerts"):
        yield Case(f"expecting 100 {path}", request("POST", path, JSON, expect, body=b"[]"), sent=_why(Why.EXPECT))
        more = request("POST", path, JSON, "Expect: x,100-Continue", body=b"[]")
        yield Case(f"expecting 100 and more {path}", more, sent=_why(Why.EXPECT))
    yield Case(
        "expecting 100, chunked",
        request("POST", SILENCES, JSON, "expect: 100-Continue", CHUNKED, body=TWO),
        sent=_why(Why.EXPECT, Why.CHUNKS),
        answered=_why(Why.ENDING),
    )
    yield Case(
        "expecting 100, read by nobody",
        request("PUT", SILENCES, JSON, expect, body=b"{}"),
        sent=_why(Why.EXPECT),
        answered=_why(Why.CONTINUED),
        by_version=_why(Why.CLOSING),
    )
    yield Case(
        "expecting something else",
        request("POST", SILENCES, JSON, "Expect: 200-ok", body=b"{}"),
        answered=_why(Why.CLOSING),
    )
    yield Case("a length with a zero", request("POST", SILENCES, JSON, "Content-Length: 02", body=b"{}"))


def between_connections() -> Iterator[Case]:
    for lines in HOP_BY_HOP:
        ends = _if("Upgrade: " in lines, Why.ENDING)
        asked = request("GET", "/-/ready", lines)
        yield Case(f"one connection's {lines[:70]!r}", asked, sent=_why(Why.HOP), answered=ends)
    yield Case(
        "a length that is named in Connection",
        request("POST", SILENCES, JSON, "Connection: Content-Length, Transfer-Encoding", body=b"{}"),
        sent=_why(Why.HOP),
    )
    yield Case(
        "a chunked body, which is named in Connection",
        request("POST", SILENCES, JSON, CHUNKED, "Connection: Transfer-Encoding", body=TWO),
        sent=_why(Why.HOP, Why.CHUNKS),
        answered=_why(Why.ENDING),
    )


def versions() -> Iterator[Case]:
    old = _why(Why.VERSION)
    for path in ("/", "/-/ready", "/api/v2/status", "/nothing", "/metrics", "//x", "/%zz"):
        yield Case(
            f"HTTP/1.0 {path}", request("GET", path, version="1.0"), sent=old, answered=_if(path == "/%zz", Why.CLOSING)
        )
        yield Case(
            f"HTTP/1.0 kept alive {path}",
            request("GET", path, "Connection: keep-alive", version="1.0"),
            sent=old | {Why.HOP},
            answered=_if(path == "/%zz", Why.CLOSING),
        )
    yield Case("HTTP/1.0 HEAD", request("HEAD", "/", version="1.0"), sent=old)
    yield Case("HTTP/1.0 POST", request("POST", "/api/v2/alerts", JSON, body=ALERT, version="1.0"), sent=old)
    yield Case(
        "HTTP/1.0, no Host", request("GET", "/-/ready", "X-A: 1", host=False, version="1.0"), sent=old | {Why.HOST}
    )
    yield Case(
        "HTTP/1.0, expecting 100",
        request("POST", SILENCES, JSON, "Expect: 100-continue", body=b"{}", version="1.0"),
        sent=old | {Why.EXPECT},
    )
    for target in (
        "http://other.example",
        "http://other.example/",
        "http://u:p@other.example:1/-/ready?a=b",
        "https://x/%2F",
    ):
        linked = _why(Why.TARGET) if "ready" not in target and target != "http://other.example/" else NONE
        yield Case(f"absolute {target}", request("GET", target), sent=_why(Why.TARGET), by_version=linked)
    yield Case("absolute alerts", request("POST", "http://x/api/v2/alerts", JSON, body=ALERT), sent=_why(Why.TARGET))


def malformed() -> Iterator[Case]:
    """What can be read in two ways, or in none; each would smuggle a request were it passed on."""
    post = ("POST", SILENCES, JSON)
    lengths = {
        "two that differ": ("Content-Length: 2", f"Content-Length: {len(SMUGGLED) + 2}"),
        "two that are equal": ("Content-Length: 2", "Content-Length: 2"),
        "a list": ("Content-Length: 2, 2",),
        "a sign": ("Content-Length: +2",),
        "negative": ("Content-Length: -2",),
        "hexadecimal": ("Content-Length: 0x2",),
        "too much": ("Content-Length: 99999999999999999999",),
        "a space": ("Content-Length: 2 2",),
        "nothing": ("Content-Length:",),
        "a fraction": ("Content-Length: 2.0",),
        "a digit from afar": ("Content-Length: ٢",),
        "one, and chunks": ("Content-Length: 2", CHUNKED),
        "chunks, and one": (CHUNKED, "Content-Length: 2"),
        "a space before the colon": ("Content-Length : 2",),
        "chunks behind a space": ("Transfer-Encoding : chunked",),
    }
    for name, lines in lengths.items():
        yield _refused(f"lengths: {name}", request(*post, *lines, body=b"{}" + SMUGGLED))
    for coding in (
        *(
            "gzip, chunked",
            "chunked, gzip",
            "identity",
            "xchunked",
            "chunked, chunked",
            "chunked, identity",
            "\x0bchunked",
        ),
        *('"chunked"', "chunked;q=1", "chunk", "", "cow", "gzip", "deflate\r\nTransfer-Encoding: chunked", "chunked,"),
        *("chunked\r\nTransfer-Encoding: chunked", "chunked\r\nTransfer-Encoding: identity"),
    ):
        yield _refused(f"coding {coding!r}", request(*post, f"Transfer-Encoding: {coding}", body=TWO + SMUGGLED))
        yield _refused(
            f"coding {coding!r}, nothing behind it", request(*post, f"Transfer-Encoding: {coding}", body=TWO)
        )
    yield _refused("chunks in HTTP/1.0", request(*post, CHUNKED, body=TWO, version="1.0"))
    for name, body in {
        "bare line feeds": b"2\n{}\n0\n\n",
        "a sign": b"+2\r\n{}\r\n0\r\n\r\n",
        "a prefix": b"0x2\r\n{}\r\n0\r\n\r\n",
        "a space": b"2 \r\n{}\r\n0\r\n\r\n",
        "an overflow": b"ffffffffffffffff2\r\n{}\r\n0\r\n\r\n",
        "no line end behind it": b"2\r\n{}XX0\r\n\r\n",
        "too short": b"1\r\n{}\r\n0\r\n\r\n",
        "nothing": b"\r\n{}\r\n0\r\n\r\n",
        "a negative length": b"-2\r\n{}\r\n0\r\n\r\n",
        "a line feed in an extension": b"2;a\nb\r\n{}\r\n0\r\n\r\n",
        "a bare carriage return": b"2\r{}\r\n0\r\n\r\n",
        "a length in a trailer": b"2\r\n{}\r\n0\r\nContent-Length: 40\r\n\r\n",
        "a coding in a trailer": b"2\r\n{}\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
    }.items():
        yield _refused(f"chunk: {name}", request(*post, CHUNKED, body=body + SMUGGLED))
    for name, line in {
        "folded": b"X-A: a\r\n b",
        "folded by a tab": b"X-A: a\r\n\tb",
        "a space before the colon": b"X-A : b",
        "a tab before the colon": b"X-A\t: b",
        "a carriage return": b"X-A: a\rX-B: b",
        "a line feed": b"X-A: a\nX-B: b",
        "a zero byte": b"X-A: a\0b",
        "a control character": b"X-A: a\x01b",
        "no colon": b"X-A",
        "no name": b": x",
        "a bracket in its name": b"X(y): 1",
        "a byte in its name": b"X\xe9: 1",
        "a space in its name": b"X A: 1",
        "a space before its name": b" X: 1",
    }.items():
        yield _refused(f"header: {name}", request("GET", "/-/ready", line, "X-C: c"))
    yield _refused("two Hosts", request("GET", "/-/ready", "Host: b"))
    yield _refused("two Hosts that are equal", request("GET", "/-/ready", "Host: am.example:9093"))
    yield _refused("no Host", request("GET", "/-/ready", host=False))
    yield _refused("a space in the target", request("GET", "/a b"))
    yield _refused("a tab in the target", request("GET", "/a\tb"))
    yield _refused("a control character in the target", request("GET", "/a\x01b"))
    yield _refused("a target without its slash", request("GET", "x"))
    yield _refused("HTTP/0.9", b"GET /-/ready\r\n\r\n")
    yield _refused("HTTP/2.0", request("GET", "/-/ready", version="2.0"))
    yield _refused("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    yield _refused("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
    yield _refused("a version in lower case", b"GET / http/1.1\r\nHost: x\r\n\r\n")
    yield _refused("bare line feeds", b"GET /-/ready HTTP/1.1\nHost: x\n\n")
    yield _refused("a space behind the version", b"GET / HTTP/1.1 \r\nHost: x\r\n\r\n")
    yield _refused("more than a MiB of one header", request("GET", "/-/ready", "X-A: " + "a" * 1_200_000))
    yield _refused("more than a MiB of a query", request("GET", "/-/ready?" + "a" * 1_200_000))


def unusual() -> Iterator[Case]:
    """What Alertmanager takes, or answers in its own way, and no client that we know sends."""
    strict = _why(Why.STRICTER)
    for name, raw in {
        "a method of one's own": request("FOO", "/x"),
        "a method in lower case": request("get", "/x"),
        "CONNECT": b"CONNECT x.example:80 HTTP/1.1\r\nHost: x.example\r\n\r\n",
        "HTTP/1.2": request("GET", "/-/ready", version="1.2"),
        "UTF-8 in the target": request("GET", "/café"),
        "a byte in the target": request("GET", b"/caf\xe9"),
        "UTF-8 in the query": request("GET", "/?q=é"),
        "two User-Agents": request("GET", "/-/ready", "User-Agent: a", "User-Agent: b"),
        "two types": request("POST", SILENCES, JSON, JSON, body=b"{}"),
        "200 headers": request("GET", "/-/ready", *(f"X-{n}: 1" for n in range(200))),
        "a WebSocket of old": request("GET", "/-/ready", "Sec-WebSocket-Key1: x"),
    }.items():
        yield Case(name, raw, sent=strict, answered=strict)
    tolerated = _why(Why.TOLERATED)
    yield Case("line ends before it", b"\r\n" + request("GET", "/-/ready"), sent=tolerated, answered=tolerated)
    yield Case("two spaces", b"GET  /-/ready HTTP/1.1\r\nHost: x\r\n\r\n", sent=tolerated, answered=tolerated)


def _refused(name: str, raw: bytes) -> Case:
    return Case(name, raw, sent=_why(Why.REFUSED), answered=_why(Why.REFUSED))


def _why(*why: Why) -> Differences:
    return frozenset(why)


def _if(true: bool, *why: Why) -> Differences:
    return frozenset(why) if true else NONE
