"""What declarations are made of: sections, and the kinds of values a setting can have.

A kind reads text. A scalar of the YAML file, a variable and a flag are all taken as they were written, so each source
understands the same spellings, and YAML's own opinions (`off` is False, `1:30` is 90) play no part.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Generic, TypeVar, dataclass_transform
from urllib.parse import urlsplit

from proxy import durations
from proxy.matchers import Pattern, parse_matchers

_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""The last ones stand for bytes that are no UTF-8."""

T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)


def setting(*, default: T, description: str) -> T:
    """Declare a field: its value when nobody says otherwise, and its row of the reference."""
    declared: T = field(default=default, metadata={"description": description})
    return declared


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(setting,))
class Section:
    """Settings that belong together; its docstring introduces them in the reference.

    Each field is a setting or a section in turn, and has a default. A subclass becomes a frozen dataclass. What code
    puts into one is taken as it is: only `load` reads text.
    """

    def __init_subclass__(cls) -> None:
        dataclass(frozen=True, kw_only=True)(cls)


class Secret:
    """A value that is never printed. Empty means not given, and is falsy."""

    __slots__ = ("_value", "file")

    def __init__(self, value: str = "", file: Path | None = None) -> None:
        self._value = value
        self.file = file
        """Where it was read from, if it was."""

    def reveal(self) -> str:
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __repr__(self) -> str:
        return "<secret>"

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens."""

    host: str
    """Empty for all interfaces; an IPv6 address stands without its brackets."""
    port: int
    """0 for any free one."""

    @property
    def is_loopback(self) -> bool:
        """Whether nobody beyond this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Kind(ABC, Generic[T]):
    """How one kind of value is read from text, shown and described."""

    name: str
    """In the reference's type column."""
    metavar: str
    """In the help of the flag."""
    want: str
    """Closes messages about bad values."""
    one_will_do = False
    """Whether a list of them may be written as a single value."""

    def parse(self, text: str) -> T:
        """Return the value `text` stands for. Raises ValueError with a message for the operator."""
        text = text.strip()
        if not text:
            raise ValueError(f"is empty, {self.want}")
        return self._parse(text)

    @abstractmethod
    def _parse(self, text: str) -> T: ...

    def show(self, value: T) -> str:
        """Return text from which `parse` makes `value` again."""
        return str(value)


class TextKind(Kind[str]):
    name = "text"
    metavar = "TEXT"
    want = "want some text"

    def _parse(self, text: str) -> str:
        return text


class BooleanKind(Kind[bool]):
    name = "true or false"
    metavar = "true|false"
    want = "want true or false"

    def _parse(self, text: str) -> bool:
        match text.lower():
            case "true" | "yes" | "on" | "1":
                return True
            case "false" | "no" | "off" | "0":
                return False
        raise ValueError(f"bad value {text!r}, {self.want}")

    def show(self, value: bool) -> str:
        return "true" if value else "false"


class Between(Kind[int]):
    """A whole number, both ends included."""

    metavar = "NUMBER"

    def __init__(self, low: int, high: int) -> None:
        self._low, self._high = low, high
        self.name = f"number, {low} to {high}"
        self.want = f"want a whole number from {low} to {high}"

    def _parse(self, text: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
            raise ValueError(f"bad number {text!r}, {self.want}")
        if not self._low <= int(text) <= self._high:
            raise ValueError(f"{text} is out of range, {self.want}")
        return int(text)


class ChoiceKind(Kind[E]):
    """One member of a StrEnum, in any case."""

    def __init__(self, choices: type[E]) -> None:
        self._choices = choices
        self._values = [member.value for member in choices]
        self.name = ", ".join(f"`{value}`" for value in self._values)
        self.metavar = "|".join(self._values)
        self.want = f"want one of {', '.join(self._values)}"

    def _parse(self, text: str) -> E:
        value = text.lower()
        if value == "false":
            value = "off"  # what a bare `off` becomes on its way through Helm's or Ansible's YAML
        if value not in self._values:
            raise ValueError(f"unknown value {text!r}, {self.want}{did_you_mean(closest(value, self._values))}")
        return self._choices(value)


class DurationKind(Kind[timedelta]):
    name = "duration"
    metavar = "DURATION"
    want = durations.WANT

    def _parse(self, text: str) -> timedelta:
        return durations.parse_duration(text)

    def show(self, value: timedelta) -> str:
        return durations.format_duration(value)


class AddressKind(Kind[Address]):
    name = "address"
    metavar = "HOST:PORT"
    want = "want for example :19093, 127.0.0.1:19093 or [::1]:19093"

    def _parse(self, text: str) -> Address:
        found = re.fullmatch(r"(?:\[(?P<v6>[^\]]*)\]|(?P<host>[A-Za-z0-9._-]*)):(?P<port>[0-9]{1,5})", text)
        if found is None or int(found["port"]) > 65535:
            raise ValueError(f"bad address {text!r}, {self.want}")
        if found["v6"] is not None:
            try:
                ipaddress.IPv6Address(found["v6"])
            except ValueError:
                raise ValueError(f"bad IPv6 address in {text!r}, {self.want}") from None
        return Address(found["host"] if found["v6"] is None else found["v6"], int(found["port"]))


class UrlKind(Kind[str]):
    """An http or https URL; kept without a slash at its end."""

    name = "URL"
    metavar = "URL"
    want = "want for example http://127.0.0.1:9093"

    def _parse(self, text: str) -> str:
        # What may be a password or a token is not repeated in a message.
        if "@" in text:
            raise ValueError(f"a URL with a user and password would show up in logs, leave them out; {self.want}")
        if "?" in text or "#" in text:
            raise ValueError(f"a URL here has no query and no fragment (? and #), {self.want}")
        bad = f"bad URL {text!r}, {self.want}"
        if re.search(r"[\s\\\x00-\x1f\x7f]", text):
            raise ValueError(bad)
        try:
            parts = urlsplit(text)
            usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:  # a port that is no number, or half an IPv6 address
            usable = False
        if not usable:
            raise ValueError(bad)
        try:
            (parts.hostname or "").encode("idna")  # as whoever looks it up does, for each request anew
        except UnicodeError:
            raise ValueError(f"bad URL {text!r}, no host can have such a name; {self.want}") from None
        return text.rstrip("/")


class AlertmanagerUrlKind(UrlKind):
    """Where one Alertmanager is; `dns+` before it: each address that the name has in DNS is one."""

    one_will_do = True

    def _parse(self, text: str) -> str:
        watched = text.startswith("dns+")
        return "dns+" * watched + super()._parse(text.removeprefix("dns+"))


class ModelUrlKind(UrlKind):
    """Where a provider's API is: the address to which the paths of its calls are added."""

    want = "want for example http://127.0.0.1:8000/v1"


class StoreUrlKind(Kind[str]):
    """What comes before the first colon says which store; the rest is read by that store's adapter."""

    name = "store URL"
    metavar = "URL"
    want = "want for example sqlite:, memory:, redis://redis:6379/0, redis+sentinel://host:26379/mymaster/0"

    def _parse(self, text: str) -> str:
        # Not repeated in a message: the URL of a database often holds its password.
        if "@" in text:
            raise ValueError(
                "a URL with a user and password would show up in logs, put them into store.username and"
                f" store.password or store.password_file; {self.want}"
            )
        if text == "memory:" or re.fullmatch(r"sqlite:[^?#]*", text):
            return text
        if found := re.fullmatch(
            r"rediss?(?:\+(sentinel|cluster))?://([^/?#\s]+)((?:/[^/?#\s]+)*)/?"
            r"(?:\?(?:&?ssl_(?:ca_certs|ca_path|certfile|keyfile|check_hostname)=[^#&\s]+)+)?",
            text,
        ):
            kind, hosts, path = found[1], found[2].split(","), found[3].split("/")[1:]
            if kind is None and len(hosts) > 1:
                raise ValueError("several servers, want redis+sentinel://… or redis+cluster://…")
            if not all(map(_is_host, hosts)):
                raise ValueError(f"bad address in the URL of the store, {self.want}")
            if kind == "sentinel" and not path:
                raise ValueError("the name of the master is missing, want redis+sentinel://host:26379/mymaster")
            databases = path[1:] if kind == "sentinel" else path
            if kind == "cluster" and path:
                raise ValueError("a Cluster has no databases, want nothing behind the last server")
            if len(databases) > 1 or not all(re.fullmatch("[0-9]{1,4}", d) for d in databases):
                raise ValueError(f"want nothing but the number of a database at its end, {self.want}")
            return text
        raise ValueError(f"no such kind of store, {self.want}")


def _is_host(text: str) -> bool:
    found = re.fullmatch(r"(?:\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?", text)
    return found is not None and 0 < int(found[1] or 1) < 65536


class ReplicasKind(Kind[int]):
    """A number, or 0 for `auto`."""

    name = "`auto` or number"
    metavar = "auto|NUMBER"
    want = "want auto, or how many proxies there are"

    def _parse(self, text: str) -> int:
        if text.lower() == "auto":
            return 0
        if not re.fullmatch(r"[0-9]{1,4}", text) or not 1 <= int(text) <= 1000:
            raise ValueError(f"bad number {text!r}, {self.want}")
        return int(text)

    def show(self, value: int) -> str:
        return str(value) if value else "auto"


class PercentKind(Kind[float]):
    name = "number, 0 to 100"
    metavar = "PERCENT"
    want = "want a number from 0 to 100, for example 10 or 0.5"

    def _parse(self, text: str) -> float:
        if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3})?", text) or float(text) > 100:
            raise ValueError(f"bad share {text!r}, {self.want}")
        return float(text)

    def show(self, value: float) -> str:
        return f"{value:g}"


class MatchersKind(Kind[str]):
    """A list of matchers as Alertmanager writes it, checked and kept as text."""

    name = "matchers"
    metavar = "MATCHERS"
    want = 'want for example alertname=~"Watchdog|InfoInhibitor"'

    def _parse(self, text: str) -> str:
        if not parse_matchers(text):
            raise ValueError(f"no matcher in {text!r}, which would take in every alert; {self.want}")
        return text


class PatternKind(Kind[str]):
    """A regular expression that looks for something in a text, checked and kept as text."""

    name = "regular expression"
    metavar = "REGEX"
    want = "want one of RE2, for example cust-[0-9]+"

    def _parse(self, text: str) -> str:
        try:
            empty = Pattern(text).search("")
        except ValueError as exc:
            raise ValueError(f"{exc}, {self.want}") from None
        if empty:
            raise ValueError(f"{text!r} finds the empty text, which is everywhere; {self.want}")
        return text


class LabelNameKind(Kind[str]):
    """The name of a label."""

    name = "label name"
    metavar = "NAME"
    want = "want for example pod"

    def _parse(self, text: str) -> str:
        if not re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", text):
            raise ValueError(f"bad label name {text!r}, it is made of letters, digits and _; {self.want}")
        return text


class AddedLabelKind(LabelNameKind):
    """The name of a label we add."""

    want = "want for example ai_severity"

    def _parse(self, text: str) -> str:
        super()._parse(text)
        if text.startswith("__"):
            raise ValueError(f"{text!r} is a name for Prometheus' own use, {self.want}")
        if text in ("severity", "alertname"):
            raise ValueError(f"{text!r} is the author's and never touched, {self.want}")
        return text


class NamePrefixKind(Kind[str]):
    name = "name prefix"
    metavar = "PREFIX"
    want = "want for example ai_"

    def _parse(self, text: str) -> str:
        if not re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", text):
            raise ValueError(f"bad prefix {text!r}, it is made of letters, digits and _; {self.want}")
        return text


class UserKind(Kind[str]):
    """The name of a user whom a password follows in a header, behind a colon."""

    name = "user"
    metavar = "NAME"
    want = "want for example prometheus"

    def _parse(self, text: str) -> str:
        if ":" in text or _CONTROL.search(text):
            raise ValueError(f"a user has no colon in its name, and no control character (RFC 7617), {self.want}")
        return text


class FileKind(Kind[Path]):
    """The path of a file; `~` stands for itself."""

    name = "file"
    metavar = "FILE"
    want = "want the path of a file"

    def _parse(self, text: str) -> Path:
        return Path(text)


class SecretKind(Kind[Secret]):
    name = "secret"
    metavar = "SECRET"
    want = "want some text"

    def __init__(self, *, needed: bool = True, is_token: bool = False, is_line: bool = False) -> None:
        self.needed = needed
        """False: a file of the secret that cannot be read is a warning, and the secret stays empty."""
        self._is_token = is_token
        """Whether it is sent as it is in an HTTP header."""
        self._is_line = is_line
        """Whether it goes into a header encoded, so that control characters alone are refused."""

    def parse(self, text: str) -> Secret:
        # The line feed that `echo` and editors leave behind is never meant, and breaks HTTP headers.
        secret = text.rstrip("\r\n")
        if self._is_token and not (secret.isascii() and secret.isprintable()):
            raise ValueError("a token on one line is wanted, and this has other lines, or characters that no token has")
        if self._is_line and _CONTROL.search(secret):
            raise ValueError("a secret on one line is wanted, and this has other lines, or control characters")
        return Secret(secret)

    _parse = parse

    def show(self, value: Secret) -> str:
        return repr(value) if value else ""


HEADER_SECRET: Final = SecretKind(is_line=True)
"""A token or a password that goes into a header, where a line feed would make every request fail."""

Duration = Annotated[timedelta, DurationKind()]
HeaderSecret = Annotated[Secret, HEADER_SECRET]
Listen = Annotated[Address, AddressKind()]
AlertmanagerUrl = Annotated[str, AlertmanagerUrlKind()]
ModelUrl = Annotated[str, ModelUrlKind()]
StoreUrl = Annotated[str, StoreUrlKind()]
Replicas = Annotated[int, ReplicasKind()]
Percent = Annotated[float, PercentKind()]
Matchers = Annotated[str, MatchersKind()]
LabelName = Annotated[str, LabelNameKind()]
Regex = Annotated[str, PatternKind()]
AddedLabel = Annotated[str, AddedLabelKind()]
NamePrefix = Annotated[str, NamePrefixKind()]


def closest(word: str, words: Iterable[str]) -> str:
    """Return the one of `words` that `word` may be a slip of; empty when none is close."""
    return next(iter(difflib.get_close_matches(word, list(words), n=1)), "")


def did_you_mean(word: str) -> str:
    """Return the end of a message that suggests `word`, if there is one."""
    return f"; did you mean {word}?" if word else ""
