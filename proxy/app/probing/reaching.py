"""Whether Alertmanager is reached: by its name, through TLS, with credentials, under its prefix, and it alone."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from yarl import URL

from proxy.app.probing.findings import Finding, Level
from proxy.app.probing.upstream import Answer, Status, Upstream, status_in
from proxy.errors import UpstreamError, UpstreamRefused

CHECK: Final = "alertmanager"
OLDEST: Final = (0, 22)
"""Older ones know no `matchers` in their configuration, and nobody has tried the proxy with them."""
CLOCKS_APART: Final = timedelta(seconds=30)
_API: Final = "/api/v2/status"
_USUAL: Final = ("", "/alertmanager", "/am")
_TRACES: Final = ("server", "via", "x-powered-by", "x-envoy-upstream-service-time", "cf-ray")


async def reached(upstream: Upstream) -> AsyncIterator[Finding]:
    """Set the status of `upstream`, and its address where that is another one on the same host."""
    try:
        answer = await upstream.get("api/v2/status")
    except UpstreamError as exc:
        yield Finding(CHECK, Level.ERROR, str(exc))
        return
    asked = upstream.url / "api/v2/status"
    match answer.status:
        case 200:
            try:
                upstream.status = status_in(answer)
                upstream.hops = _hops(answer)
            except UpstreamRefused:
                found = await _elsewhere(upstream)
                yield Finding(CHECK, Level.ERROR, _moved(upstream, found) if found else _stranger(asked, answer))
        case 301 | 302 | 303 | 307 | 308:
            async for finding in _redirected(upstream, answer):
                yield finding
        case 401 | 403:
            yield Finding(CHECK, Level.ERROR, _refused(asked, answer.status, upstream.access.has_credentials))
        case 404:
            found = await _elsewhere(upstream)
            missing = (
                f"GET {asked}: 404, and no Alertmanager under the usual prefixes either; its --web.route-prefix "
                "belongs into alertmanager.url as the path"
            )
            yield Finding(CHECK, Level.ERROR, _moved(upstream, found) if found else missing)
        case _:
            yield Finding(CHECK, Level.ERROR, _odd(asked, answer))
    for finding in _known(upstream):
        yield finding


def _known(upstream: Upstream) -> Iterator[Finding]:
    """Yield what there is to say about an Alertmanager that was reached."""
    status = upstream.status
    if status is None:
        return
    upstream.ahead = status.shown_at - datetime.now(UTC)
    yield Finding(CHECK, Level.OK, f"{upstream.url}: Alertmanager {status.version or 'of an unknown version'} answers")
    version = re.match(r"v?(\d+)\.(\d+)", status.version)
    if version and (int(version[1]), int(version[2])) < OLDEST:
        yield Finding(
            CHECK,
            Level.WARNING,
            f"Alertmanager {status.version} is older than {OLDEST[0]}.{OLDEST[1]}: its routes know no `matchers`, and "
            "the proxy is not tried with it; upgrade it",
        )
    if abs(upstream.ahead) > CLOCKS_APART:
        yield Finding(
            CHECK,
            Level.WARNING,
            f"Alertmanager's clock and that of this machine are {abs(upstream.ahead).total_seconds():.0f} s apart: by "
            "each of them other alerts have ended; have both set by NTP",
        )
    if upstream.hops:
        yield Finding(
            CHECK,
            Level.WARNING,
            f"something stands between this machine and Alertmanager ({'; '.join(upstream.hops)}): POSTs of alerts "
            "pass it too, and its limits hold for them (bodies of many megabytes, connections idle for minutes)",
        )


async def _redirected(upstream: Upstream, answer: Answer) -> AsyncIterator[Finding]:
    to = _location(upstream.url / "api/v2/status", answer)
    if to is not None and to.path.endswith(_API):
        base = to.with_path(to.path.removesuffix(_API) or "/")
        yield Finding(
            CHECK,
            Level.ERROR,
            f"{upstream.url} redirects to {_text(base)}: senders follow that with a GET, and the alerts are lost; set "
            f"alertmanager.url: {_text(base)}",
        )
        if base.origin() == upstream.url.origin():  # nobody else gets our credentials
            try:
                upstream.status = await upstream.ask_status(url=base)
                upstream.url = base
            except UpstreamError:
                pass
        return
    where = f" to {_text(to)}" if to is not None else ""
    yield Finding(
        CHECK,
        Level.ERROR,
        f"{upstream.url} redirects{where} ({answer.status}), as a login page does: senders follow that with a GET, and "
        "the alerts are lost; set alertmanager.url to Alertmanager itself, behind the login",
    )


async def _elsewhere(upstream: Upstream) -> URL | None:
    """Return where on the same host an Alertmanager is, and take up its status."""
    places = await _places(upstream)

    async def ask(url: URL) -> Status | None:
        try:
            return await upstream.ask_status(url=url)
        except UpstreamError:
            return None

    answers = await asyncio.gather(*(ask(url) for url in places))
    for url, status in zip(places, answers, strict=True):
        if status is not None:
            upstream.status = status
            return url
    return None


async def _places(upstream: Upstream) -> list[URL]:
    """Return where an Alertmanager may be: where its host sends a browser, above our path, and where many have it."""
    origin, path = upstream.url.origin(), upstream.url.path.rstrip("/")
    paths = []
    try:
        sent = _location(origin / "", await upstream.get("", url=origin / ""))
        if sent is not None and sent.origin() == origin:
            paths.append(sent.path.rstrip("/"))
    except UpstreamError:
        pass
    parts = path.split("/")
    paths += ["/".join(parts[:n]) for n in range(len(parts) - 1, 0, -1)][:4]
    return [origin.with_path(one or "/") for one in dict.fromkeys((*paths, *_USUAL)) if one != path]


def _moved(upstream: Upstream, found: URL) -> str:
    was, upstream.url = upstream.url, found
    prefix = found.path.rstrip("/")
    senders = f", and senders to the proxy the path_prefix {prefix}" if prefix else ", and senders to the proxy none"
    return f"no Alertmanager at {was}, but at {_text(found)}: set alertmanager.url: {_text(found)}{senders}"


def _stranger(asked: URL, answer: Answer) -> str:
    if "html" in answer.headers.get("content-type", "") or answer.body.lstrip()[:1] == b"<":
        return (
            f"GET {asked}: a web page, as a login in front of Alertmanager gives it, or another program; set "
            "alertmanager.url to Alertmanager itself"
        )
    return (
        f"GET {asked}: 200, but it is no Alertmanager's answer; alertmanager.url is another program's, or something in "
        "between changes answers"
    )


def _refused(asked: URL, status: int, known: bool) -> str:
    mine = "alertmanager.authorization.credentials or alertmanager.basic_auth"
    if not known:
        return f"GET {asked}: {status}, it wants credentials: set {mine}; senders to the proxy need theirs, too"
    return f"GET {asked}: {status}, it refuses our credentials: check {mine}"


def _odd(asked: URL, answer: Answer) -> str:
    if answer.status == 400 and b"HTTPS" in answer.body[:200]:
        return f"GET {asked}: it speaks TLS; want https:// in alertmanager.url"
    if answer.status in {502, 503, 504}:
        return (
            f"GET {asked}: {answer.status}; what answers there has no Alertmanager behind it, or that one is busy "
            "(it answers as many GETs at once as it has CPUs, 8 at least)"
        )
    return f"GET {asked}: {answer.status}, it should answer 200; is alertmanager.url Alertmanager's?"


def _hops(answer: Answer) -> tuple[str, ...]:
    """Return the headers by which something between here and Alertmanager gives itself away."""
    return tuple(f"{name}: {answer.headers[name][:60]}" for name in _TRACES if name in answer.headers)


def _location(asked: URL, answer: Answer) -> URL | None:
    if not 300 <= answer.status < 400:
        return None
    try:
        to = asked.join(URL(answer.headers["location"]))
        to.origin()
    except (KeyError, ValueError):
        return None
    # A query may hold a token.
    return to.with_query(None).with_fragment(None).with_user(None)


def _text(url: URL) -> str:
    return str(url).rstrip("/")
