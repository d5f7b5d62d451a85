"""The commands that ask a running proxy: `mode`, `decisions` and `status`."""

from __future__ import annotations

import argparse
import getpass
import ipaddress
import json
import os
import re
import ssl
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from proxy import __version__, config
from proxy.cli import texts
from proxy.cli.arguments import checked_by, read_by
from proxy.cli.client import AdminClient, RequestFailed
from proxy.config.kinds import Between, DurationKind, MatchersKind, PercentKind, UrlKind
from proxy.gateway import web_config
from proxy.gateway.server_tls import no_password, why
from proxy.policy import CanaryBy, Mode

Ask = Callable[[AdminClient, argparse.Namespace], Mapping[str, Any]]
Show = Callable[[Mapping[str, Any]], str]

_FORGET = (
    "Drops decisions, so that their alerts are decided anew when they come next. "
    "CAREFUL: an alert that fires may page again, because other labels make it another alert to Alertmanager. "
    "One that began before labelling did goes without labels from then on."
)
_FILTER = (
    'only alerts whose labels, as their sender gave them, match, as in alertname=~"High.*",team=db; '
    "give it more than once and all must hold"
)


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands to a parser."""
    common = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    common.add_argument(
        "--proxy.url",
        dest="url",
        type=read_by(UrlKind()),
        metavar="URL",
        help="the proxy's admin listener (default: web.admin_listen_address, on this machine)",
    )
    common.add_argument(
        "--config.file",
        dest="file",
        type=Path,
        metavar="FILE",
        help="the proxy's settings, for the address and the token of its admin listener; without it the environment "
        "says (WEB_ADMIN_LISTEN_ADDRESS, WEB_ADMIN_TOKEN, WEB_ADMIN_TOKEN_FILE)",
    )
    for name, about in (
        ("ca-file", "CA of the certificate that web.admin_config.file gives the proxy (default: the system's)"),
        ("cert-file", "certificate to show to the proxy, where it asks for one"),
        ("key-file", "its key, if it is not in the same file"),
    ):
        common.add_argument(f"--proxy.{name}", dest=name.replace("-", "_"), type=Path, metavar="FILE", help=about)
    common.add_argument("-o", "--output", choices=["text", "json"], default="text", help="json: the proxy's answer")

    def add(to: Any, name: str, ask: Ask, show: Show, about: str, description: str = "") -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = to.add_parser(
            name, help=about, description=description or None, parents=[common], allow_abbrev=False
        )
        parser.set_defaults(run=_runner(ask, show), usage=parser.error)
        return parser

    _add_mode(commands, add)
    _add_decisions(commands, add)
    add(commands, "status", lambda client, _: client.get("/api/v1/status"), texts.status, "say how a proxy is doing")


def _add_mode(commands: Any, add: Callable[..., argparse.ArgumentParser]) -> None:
    mode = commands.add_parser("mode", help="show or switch the mode of a running proxy", allow_abbrev=False)
    verbs = mode.add_subparsers(required=True, metavar="get|set|reset")
    add(verbs, "get", lambda client, _: client.get("/enrichment/mode"), texts.mode, "show the mode that holds")
    to = add(
        verbs,
        "set",
        _set_mode,
        texts.mode,
        "switch, until the next switch or for a time",
        "Switches the mode for alerts not seen yet; those that fire keep what they have.",
    )
    to.add_argument("mode", choices=[mode.value for mode in Mode], metavar="MODE", help=", ".join(Mode))
    to.add_argument(
        "--for", dest="lasting", type=checked_by(DurationKind()), metavar="DURATION", help="go back after, say, 2h"
    )
    to.add_argument(
        "--canary.percent",
        dest="percent",
        type=read_by(PercentKind()),
        metavar="PERCENT",
        help="how many of a hundred alerts take part; as the rest of the canary, as configured if it is not given",
    )
    to.add_argument(
        "--canary.by",
        dest="canary_by",
        choices=[by.value for by in CanaryBy],
        help="whether all alerts of a name are drawn together, or each by itself",
    )
    to.add_argument(
        "--canary.matchers",
        dest="matchers",
        action="append",
        type=checked_by(MatchersKind()),
        metavar="MATCHERS",
        help='only alerts that match take part, as in team="db"; give it more than once and one of them must hold',
    )
    to.add_argument(
        "--force", action="store_true", help="also while another proxy cannot follow: alerts that begin may page twice"
    )
    back = add(verbs, "reset", _reset_mode, texts.mode, "go back to the mode that is configured")
    for parser in (to, back):
        parser.add_argument("--by", metavar="NAME", help="who asks, for the log (default: your user name)")


def _add_decisions(commands: Any, add: Callable[..., argparse.ArgumentParser]) -> None:
    decisions = commands.add_parser(
        "decisions", help="list, show or forget what a running proxy decided", allow_abbrev=False
    )
    verbs = decisions.add_subparsers(required=True, metavar="list|get|forget")
    listing = add(verbs, "list", _list_decisions, texts.decisions, "list decisions, the latest first")
    listing.add_argument(
        "--limit", type=read_by(Between(0, 1000)), default=100, metavar="N", help="at most so many (default: 100)"
    )
    getting = add(verbs, "get", _get_decision, texts.decision, "show the decision on one alert")
    getting.add_argument(
        "fingerprint",
        type=_fingerprint,
        metavar="FINGERPRINT",
        help="as Alertmanager shows it, with or without our labels",
    )
    forgetting = add(verbs, "forget", _forget, texts.forgotten, "drop decisions; their alerts may PAGE AGAIN", _FORGET)
    forgetting.add_argument(
        "fingerprint", nargs="?", type=_fingerprint, metavar="FINGERPRINT", help="the one alert, as for get"
    )
    for parser in (listing, forgetting):
        parser.add_argument(
            "--filter",
            dest="filters",
            action="append",
            default=[],
            type=checked_by(MatchersKind()),
            metavar="MATCHERS",
            help=_FILTER,
        )


def _runner(ask: Ask, show: Show) -> Callable[[argparse.Namespace], int]:
    def run(arguments: argparse.Namespace) -> int:
        settings = config.load(arguments.file, environ=os.environ).settings
        try:
            url = arguments.url or admin_url(settings.web)
            client = AdminClient(url, settings.web.admin_token.reveal(), tls=_tls(arguments))
            found = ask(client, arguments)
            text = json.dumps(found, indent=2) if arguments.output == "json" else _shown(show, found)
        except RequestFailed as exc:
            _say(texts.plain(str(exc)), sys.stderr)
            return 1
        _say(text, sys.stdout)
        return 0

    return run


def _shown(show: Show, found: Mapping[str, Any]) -> str:
    try:
        return show(found)
    except (LookupError, TypeError, ValueError, AttributeError) as exc:
        raise RequestFailed(
            f"this is not the answer of a proxy of version {__version__}, try -o json ({type(exc).__name__}: {exc})"
        ) from exc


def _say(text: str, to: Any) -> None:
    """Print `text`, also where the terminal lacks some of its letters."""
    print(text.encode(to.encoding or "utf-8", "backslashreplace").decode(to.encoding or "utf-8"), file=to)


def _set_mode(client: AdminClient, arguments: argparse.Namespace) -> Mapping[str, Any]:
    canary = {"percent": arguments.percent, "by": arguments.canary_by, "matchers": arguments.matchers}
    given = {
        "for": arguments.lasting,
        "canary": {name: part for name, part in canary.items() if part is not None},
        "force": arguments.force,
    }
    wanted = {name: part for name, part in given.items() if part}
    return client.post("/enrichment/mode", {"mode": arguments.mode, "by": _by(arguments)} | wanted)


def _reset_mode(client: AdminClient, arguments: argparse.Namespace) -> Mapping[str, Any]:
    return client.post("/enrichment/mode/reset", {"by": _by(arguments)})


def _list_decisions(client: AdminClient, arguments: argparse.Namespace) -> Mapping[str, Any]:
    asked = [("limit", arguments.limit), *(("filter", text) for text in arguments.filters)]
    return client.get(f"/api/v1/decisions?{urlencode(asked, errors='replace')}")


def _get_decision(client: AdminClient, arguments: argparse.Namespace) -> Mapping[str, Any]:
    return client.get(f"/api/v1/decisions/{arguments.fingerprint}")


def _forget(client: AdminClient, arguments: argparse.Namespace) -> Mapping[str, Any]:
    if bool(arguments.fingerprint) is bool(arguments.filters):
        arguments.usage("want either a FINGERPRINT or --filter")
    which = {"filter": arguments.filters} if arguments.filters else {"fingerprint": arguments.fingerprint}
    return client.post("/api/v1/decisions/forget", which)


def admin_url(web: config.Web) -> str:
    """Return where this machine reaches the admin listener. Raises RequestFailed and ConfigError."""
    listens, door = web.admin_listen_address, web.admin_config.file
    if not listens.port:
        raise RequestFailed("web.admin_listen_address has port 0, which is any; name the proxy with --proxy.url")
    host = listens.host or "127.0.0.1"
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        pass  # a name
    else:
        if address.is_unspecified:
            host = "127.0.0.1" if address.version == 4 else "::1"
    scheme = "http" if door is None or web_config.read(door).tls is None else "https"
    return f"{scheme}://{config.Address(host, listens.port)}"


def _tls(arguments: argparse.Namespace) -> ssl.SSLContext | None:
    """Return how TLS is spoken to the proxy, as the arguments say. Raises RequestFailed."""
    if arguments.key_file and not arguments.cert_file:
        raise RequestFailed("--proxy.key-file is given and --proxy.cert-file is not, want both or the latter")
    if not (arguments.ca_file or arguments.cert_file):
        return None
    try:
        context = ssl.create_default_context(cafile=arguments.ca_file)
        if arguments.cert_file:
            context.load_cert_chain(arguments.cert_file, arguments.key_file, password=no_password)
    except (OSError, ValueError) as exc:
        files = ", ".join(str(file) for file in (arguments.ca_file, arguments.cert_file, arguments.key_file) if file)
        raise RequestFailed(f"{files}: {why(exc)}") from None
    return context


def _by(arguments: argparse.Namespace) -> str:
    if arguments.by is not None:
        return str(arguments.by)
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""  # as in a container that runs under a number


def _fingerprint(text: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{16}", text):
        raise argparse.ArgumentTypeError(f"bad fingerprint {text!r}, want 16 hex digits as Alertmanager shows them")
    return text
