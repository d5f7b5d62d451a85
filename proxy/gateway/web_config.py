"""The file that says how a listener takes clients in: TLS, certificates of clients, users, headers.

It is exporter-toolkit's `web.config.file`, which Prometheus and Alertmanager read as well
(https://prometheus.io/docs/prometheus/latest/configuration/https/). What this proxy cannot do as that file says is
refused, rather than done in part: it is about who comes in.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import yaml

from proxy.errors import ConfigError
from proxy.yaml_reading import NULL, YamlReader

_BOOL: Final = "tag:yaml.org,2002:bool"
_USERS: Final = 1000
_NAMES: Final = 1000
_HEADERS: Final[Mapping[str, tuple[str, ...]]] = {
    "Content-Security-Policy": (),
    "Strict-Transport-Security": (),
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": (),
}
"""Those that may be set, each with the values that it may have; any where there are none."""
_VERSIONS: Final = {
    "TLS10": ssl.TLSVersion.TLSv1,
    "TLS11": ssl.TLSVersion.TLSv1_1,
    "TLS12": ssl.TLSVersion.TLSv1_2,
    "TLS13": ssl.TLSVersion.TLSv1_3,
}
_TLS13_SUITES: Final = frozenset(
    {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"},
)
"""Always offered, as in Go."""
_SUITES: Final = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
}
"""Go's names of the suites of TLS 1.2 that it does not call insecure, and OpenSSL's."""
_CURVES: Final = {"CurveP256": "prime256v1", "CurveP384": "secp384r1", "CurveP521": "secp521r1", "X25519": "X25519"}
_CLIENTS: Final = {
    "NoClientCert": ssl.CERT_NONE,
    # It would be asked for, and whatever comes be taken.
    "RequestClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
_BCRYPT: Final = re.compile(r"\$2[abxy]\$(0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{53}")


@dataclass(frozen=True, slots=True)
class ServerTls:
    """How TLS is spoken. A Path is a file of PEM, a text is PEM itself."""

    certificate: Path | str
    key: Path | str = field(repr=False)
    client_ca: Path | str | None = None
    clients: ssl.VerifyMode = ssl.CERT_NONE
    """What clients have to show."""
    client_names: frozenset[str] | None = None
    """Of which the certificate that a client shows must have one; None: any will do."""
    min_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
    max_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
    suites: tuple[str, ...] | None = None
    """Of TLS 1.2, by OpenSSL's names; None: OpenSSL's own choice."""
    curve: str | None = None
    """The only one, by OpenSSL's name; None: OpenSSL's own choice."""
    server_preference: bool = True

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that it needs."""
        return tuple(one for one in (self.certificate, self.key, self.client_ca) if isinstance(one, Path))


@dataclass(frozen=True, slots=True)
class WebConfig:
    """How a listener takes clients in."""

    tls: ServerTls | None = None
    """None: plain HTTP."""
    users: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """The bcrypt hashes of passwords by name; with any, only these come in."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Added to answers that have none of the name."""

    @property
    def asks_for(self) -> frozenset[str]:
        """What every client has to show, by the keys that say so; with none, the unknown come in."""
        users = {"basic_auth_users"} if self.users else set()
        certificates = {"client_auth_type"} if self.tls and self.tls.clients is ssl.CERT_REQUIRED else set()
        return frozenset(users | certificates)


def read(file: Path) -> WebConfig:
    """Return what `file` says. Raises ConfigError with every mistake and its line.

    Files that it names are relative to its own directory, and not read here.
    """
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError([f"{file}: cannot be read: {getattr(exc, 'strerror', None) or exc}"]) from None
    reader = _Reader(str(file), 0)
    found = reader.config(reader.compose(text), file.parent)
    reader.finish()
    return found


class _Reader(YamlReader):
    def config(self, node: yaml.Node | None, directory: Path) -> WebConfig:
        found = self.mapping(node, ("tls_server_config", "http_server_config", "basic_auth_users", "rate_limit"))
        http = self.mapping(found.get("http_server_config"), ("http2", "headers"))
        self._switch(http.get("http2"), default=True)
        limit = found.get("rate_limit")
        if limit is not None and limit.tag != NULL:
            self.note(limit, "rate_limit is not kept: a POST that is refused for its rate is an alert that is late")
        return WebConfig(
            tls=self._tls(found.get("tls_server_config"), directory),
            users=self._users(found.get("basic_auth_users")),
            headers=self._headers(http.get("headers")),
        )

    def _tls(self, node: yaml.Node | None, directory: Path) -> ServerTls | None:
        found = self.mapping(
            node,
            (
                "cert", "cert_file", "key", "key_file", "client_auth_type", "client_ca", "client_ca_file",
                "client_allowed_sans", "cipher_suites", "curve_preferences", "min_version", "max_version",
                "prefer_server_cipher_suites",
            ),
        )  # fmt: skip
        if node is None or not found:
            return None
        certificate = self._pem(found, "cert", directory)
        key = self._pem(found, "key", directory)
        for name, one in (("cert", certificate), ("key", key)):
            if one is None:
                self.note(node, f"tls_server_config has neither {name} nor {name}_file, want one of them")
        clients, client_ca = self._clients(found, directory)
        lowest = self._version(found.get("min_version"), ssl.TLSVersion.TLSv1_2)
        highest = self._version(found.get("max_version"), ssl.TLSVersion.TLSv1_3)
        if highest < ssl.TLSVersion.TLSv1_2:
            self.note(found["max_version"], "max_version below TLS12 is not spoken, want TLS12 or TLS13")
        if lowest > highest:
            self.note(found["min_version"], "min_version is above max_version: nobody could come in")
        suites = self._suites(found.get("cipher_suites"))
        if suites == ():  # no suite of TLS 1.2 is among them
            lowest = ssl.TLSVersion.TLSv1_3
            if highest < lowest:
                self.note(found["cipher_suites"], "cipher_suites has none of TLS 1.2, and max_version is TLS12")
        return ServerTls(
            certificate=certificate or "",
            key=key or "",
            client_ca=client_ca,
            clients=clients,
            client_names=self._client_names(found.get("client_allowed_sans"), clients),
            min_version=lowest,
            max_version=highest,
            suites=suites or None,
            curve=self._curve(found.get("curve_preferences")),
            server_preference=self._switch(found.get("prefer_server_cipher_suites"), default=True),
        )

    def _pem(self, found: Mapping[str, yaml.Node], name: str, directory: Path) -> Path | str | None:
        """Return what is in the file of that name, or else in the text; None when there is neither."""
        if file := self._some(found.get(f"{name}_file")):
            return directory / file
        return self._some(found.get(name))

    def _clients(self, found: Mapping[str, yaml.Node], directory: Path) -> tuple[ssl.VerifyMode, Path | str | None]:
        node, authority = found.get("client_auth_type"), self._pem(found, "client_ca", directory)
        kind = self._some(node) or "NoClientCert"
        if node is not None and kind in {"RequireAnyClientCert", "RequireClientCert"}:
            self.note(node, f"{kind} takes any certificate, which keeps nobody out; want RequireAndVerifyClientCert")
        elif node is not None and kind not in _CLIENTS:
            self.note(node, f"unknown client_auth_type, want one of {', '.join(_CLIENTS)}")
        elif authority is not None and kind == "NoClientCert":
            at = found.get("client_ca_file") or found["client_ca"]
            self.note(at, "a CA of clients, and no client_auth_type; want RequireAndVerifyClientCert")
        clients = _CLIENTS.get(kind, ssl.CERT_NONE)
        if node is not None and clients is not ssl.CERT_NONE and authority is None:
            self.note(node, f"{kind} without client_ca_file would take every certificate that the system trusts")
        return clients, authority if clients is not ssl.CERT_NONE else None

    def _client_names(self, node: yaml.Node | None, clients: ssl.VerifyMode) -> frozenset[str] | None:
        if node is None or node.tag == NULL:
            return None
        names = frozenset(text for text, _ in self.texts(node, _NAMES, "names"))
        if clients is ssl.CERT_NONE:
            self.note(node, "client_allowed_sans keeps nobody out while client_auth_type verifies no certificate")
        return names

    def _version(self, node: yaml.Node | None, default: ssl.TLSVersion) -> ssl.TLSVersion:
        text = self._some(node)
        if node is None or text is None:
            return default
        if text not in _VERSIONS:
            self.note(node, f"unknown version of TLS, want one of {', '.join(_VERSIONS)}")
        return _VERSIONS.get(text, default)

    def _suites(self, node: yaml.Node | None) -> tuple[str, ...] | None:
        found: list[str] = []
        for text, at in (given := list(self.texts(node, len(_SUITES) + len(_TLS13_SUITES), "suites"))):
            if text in _SUITES:
                found.append(_SUITES[text])
            elif text not in _TLS13_SUITES:
                self.note(at, f"unknown cipher, want one of {', '.join(sorted(_SUITES))}")
        return tuple(found) if given else None

    def _curve(self, node: yaml.Node | None) -> str | None:
        given = dict(self.texts(node, len(_CURVES), "curves"))
        for text, at in given.items():
            if text not in _CURVES:
                self.note(at, f"unknown curve, want one of {', '.join(_CURVES)}")
        if node is not None and 1 < len(given) < len(_CURVES):
            self.note(node, "curve_preferences takes one curve, or all: Python can narrow OpenSSL's choice to one")
        return _CURVES.get(next(iter(given))) if len(given) == 1 else None

    def _users(self, node: yaml.Node | None) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for name, value in self.pairs(node, _USERS, "users"):
            if not isinstance(name, yaml.ScalarNode) or not isinstance(value, yaml.ScalarNode):
                self.note(name, "want a user's name and, behind it, the bcrypt hash of the password")
            elif name.value in found:
                self.note(name, "this user is given twice; keep one")
            elif ":" in name.value:
                self.note(name, "a colon in a user's name, which ends it where it is sent")
            elif not _BCRYPT.fullmatch(value.value):  # which may be a password, and is not repeated
                self.note(value, "no hash of bcrypt; `htpasswd -nBC 10 NAME` prints one behind the colon")
            else:
                found[name.value] = value.value.encode()
        return found

    def _headers(self, node: yaml.Node | None) -> dict[str, str]:
        found: dict[str, str] = {}
        for key, value in self.pairs(node, len(_HEADERS), "headers"):
            name, text = self.text(key), self.text(value)
            if name is None or text is None:
                continue
            if name not in _HEADERS:
                self.note(key, f"this header cannot be set, want one of {', '.join(_HEADERS)}")
            elif name in found:
                self.note(key, f"{name} is given twice; keep one")
            elif _HEADERS[name] and text not in _HEADERS[name]:
                self.note(value, f"bad value of {name}, want {' or '.join(_HEADERS[name])}")
            elif not (text.isascii() and text.isprintable()):
                self.note(value, f"a character in {name} that no header can have")
            else:
                found[name] = text
        return found

    def _some(self, node: yaml.Node | None) -> str | None:
        """Return a text; None where there is none, or an empty one."""
        if node is None or node.tag == NULL or (isinstance(node, yaml.ScalarNode) and not node.value):
            return None
        return self.text(node)

    def _switch(self, node: yaml.Node | None, *, default: bool) -> bool:
        if node is None or node.tag == NULL:
            return default
        if not isinstance(node, yaml.ScalarNode) or node.tag != _BOOL:
            self.note(node, "want true or false")
            return default
        return str(node.value).lower() in {"true", "yes", "on"}
