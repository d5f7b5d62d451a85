"""What in an alert's text is nobody else's business, and where it stands.

Each detector is a regular expression of RE2, so that its work is linear in the text, and a check in Python where the
expression alone would find too much. They look for secrets by their form (PEM blocks, tokens with a known beginning,
long random strings) and by what stands before them (`password=`, `Authorization:`), and for addresses.

Identifiers stay: pod hashes, git commits, image digests, UUIDs and trace ids are common in alerts, open nothing and are
what people search for. A key that is written in hexadecimal digits looks the same; it is found by the name before it.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Final

from proxy.classification.named_values import BARE, LINE, QUOTE, is_prose, values
from proxy.matchers import Pattern


class Kind(StrEnum):
    """What was found, as it begins the placeholder. The first one names a stretch of text that is several things."""

    SECRET = "SECRET"  # noqa: S105 # no secret but the word for it
    PRIVATE = "PRIVATE"
    """Found by a pattern of the operator's own."""
    EMAIL = "EMAIL"
    MAC = "MAC"
    HOST = "HOST"
    IP = "IP"


Span = tuple[int, int]
Check = Callable[[str, int, int], Span | None]
"""Takes a text and what was found in it; returns how much of that counts, None for nothing."""


@dataclass(frozen=True, slots=True)
class Detector:
    """One way to find things of one kind."""

    kind: Kind
    pattern: Pattern
    """What its first group holds is what is found; the whole of it when there is none."""
    check: Check | None = None
    sign: str = ""
    """A text without it needs no look."""

    def spans(self, text: str) -> Iterator[Span]:
        """Yield where in `text` something is found, from left to right."""
        for start, end in self.pattern.spans(text) if self.sign in text else ():
            span = self.check(text, start, end) if self.check else (start, end)
            if span and span[0] < span[1]:
                yield span


# What stands between a name and its value: a colon, an equals sign, a tag's end, %3D in an address, in any quotes.
_IS: Final = rf"\\*{QUOTE}?\*{{0,2}}(?:[\s\pZ\p{{Cf}}]|%20)*(?:=>|[:=：]{{1,2}}|>|&gt;|%(?:25)*3[ad])"
# The value of an argument: in escaped quotes, in quotes (to the end where they do not close), or up to white space.
_VALUE: Final = (
    r"""(\\+"(?s:.*?)(?:\\+"|\z)|"(?s:[^"\\]|\\.)*(?:"|\z)|'[^']*(?:'|\z)|(?:[^\s<"']|<[^/\s])(?:[^\s<]|<[^/\s])*)"""
)
_AUTHORIZATION: Final = rf"authorization{_IS}[\s\[(]*{QUOTE}?\s*"
_NAMES: Final = (
    r"(?:password|passphrase|credential)s?|passwd|passcode|pwd|bind[_.-]?pw|secret|token|secret[_.-]?(?:id|key)"
    r"|(?:api|access|private|account|shared|signing|encryption|master|license|auth|ssh|client|consumer)[_.-]?key"
    r"(?:[_.-]?id)?|secret[_.-]?access[_.-]?key|(?:access|refresh|api|auth|bearer)[_.-]?tokens"
    r"|session[_.-]?(?:id|key)|sig|signature|connection[_.-]?string|dsn"
)
# What may stand behind such a name and belongs to it.
_SUFFIX: Final = r"[0-9]{0,2}(?:[_.-]?(?:hash|value|pem|data|text|base64))?"


def names_a_secret(name: str) -> bool:
    """Return whether the whole value of a label of this name is a secret, as with `db_password` and `dbPassword2`."""
    return _SECRET_NAME.search(_HUMP.sub("_", name)) and not (name[-1] in "sS" and _COUNTED.search(name))


_HUMP: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
# Long words are secrets behind anything, as in smtppassword; short ones would be the ends of others.
_SECRET_NAME: Final = Pattern(
    rf"(?:(?:^|[^a-z])(?:{_NAMES}|authorization|cookies?|pass|pw|psk|jwts?)"
    r"|(?:password|passphrase|secret|token|api[_.-]?key)s?|passwd)"
    r"(?:[_.-]?(?:hash|file|value|pem|data|text|base64|[0-9]+))*$",
    ignore_case=True,
)
# What a model reads and writes.
_COUNTED: Final = Pattern(
    r"(?:^|[^a-z])(?:max|min|total|input|output|prompt|completion|cached|reasoning)[_.-]?tokens$", ignore_case=True
)


def _value(text: str, start: int, end: int) -> Span | None:
    """Leave the quotes out, and let be what is a sentence and no secret."""
    while start < end and text[start] in "\\\"'`":
        start += 1
    while start < end and text[end - 1] in "\\\"'`":
        end -= 1
    while start < end and text[end - 1] in ")]},.;:*":
        end -= 1
    before = text[max(0, start - 8) : start]
    if before[-1:].isspace() and before.rstrip().endswith((":", ":*", ":**")) and is_prose(text[start:end]):
        return None
    return start, end


def _no_count(text: str, start: int, end: int) -> Span | None:
    """Let numbers be, for names that may be those of counts, as in `pass: 3, fail: 1` and `tokens: 15000`."""
    found = _value(text, start, end)
    if found is None or re.fullmatch(r"[0-9][0-9.,]*[kKM%]?|yes|on|off|ok", text[slice(*found)]):
        return None
    return None if _in_a_sentence(text, *found) else found


def _in_a_sentence(text: str, start: int, end: int) -> bool:
    """Return whether a word of letters stands between others."""
    words = text[start - 1 : start].isspace() and text[start:end].isalpha()
    return words and text[end : end + 1] == " " and text[end + 1 : end + 2].isalpha()


def _key_of_scheme(text: str, start: int, end: int) -> Span | None:
    """Take what follows the first word, a scheme that nobody knows; not in a sentence."""
    scheme = re.split(r"[\s\"'\[]", text[max(0, start - 64) : start].rstrip())[-1]
    if is_prose(scheme) or is_prose(text[start:end]) or _in_a_sentence(text, start, end):
        return None
    return _value(text, start, end)


def _basic(text: str, start: int, end: int) -> Span | None:
    try:
        found = base64.b64decode(text[start:end] + "==")
    except binascii.Error:
        return None
    return (start, end) if b":" in found else None


def _bearer(text: str, start: int, end: int) -> Span | None:
    token = text[start:end]
    return (start, end) if len(token) >= 20 or any(c.isdigit() for c in token) else None


def _userinfo(text: str, start: int, end: int) -> Span | None:
    """Let an @ behind a path be. Where a port comes first it may as well be a password: then it is taken for one."""
    user = re.split("(?i):|%(?:25)*3a", text[start:end], maxsplit=1)[0]
    return None if re.search("(?i)[/?]|%(?:25)*(?:2f|3f)", user) else (start, end)


# What stands before an address of mail: `mailto:ada@example.com/x`, `sip:ada@example.com:5060`.
_ADDRESSED: Final = frozenset({
    "acct", "bcc", "by", "cc", "contact", "email", "from", "mail", "mailto", "owner", "sip", "sips", "team", "to",
    "user", "xmpp",
})  # fmt: skip
_VERSION_OR_DIGEST: Final = re.compile(r"v?[0-9]+(?:\.[0-9]+)*/|sha[0-9]+:")
_DOMAIN: Final = re.compile(r"[A-Za-z0-9_-]+\.")


def _login(text: str, start: int, end: int) -> Span | None:
    """Take `app:hunter2` before an @ and a host with a port or a path; not an address of mail, not `tool:3@v1/x`."""
    addressed = text[start:end].partition(":")[0].lower() in _ADDRESSED and _DOMAIN.match(text, end + 1)
    return None if addressed or _VERSION_OR_DIGEST.match(text, end + 1) else (start, end)


def _random(text: str, start: int, end: int) -> Span | None:
    """Take a long string that no person made up: the whole of it, or the part that is."""
    run = text[start:end]
    if _is_random(run):
        return start, end
    found = [(m.start(), m.end()) for m in re.finditer(r"[A-Za-z0-9]{20,}", run) if _is_random(m[0])]
    return (start + found[0][0], start + found[-1][1]) if found else None


def _is_random(run: str) -> bool:
    """Return whether letters and digits change places as they do in random text, and not as in words.

    Random base64 changes between lower case, upper case and digits at 6 of 10 places, and hardly has three small
    letters in a row; `KubePersistentVolumeFillingUp` is made of them.
    """
    plain = re.sub(r"[^A-Za-z0-9]", "", run)
    if len(plain) < 20 or len(run) - len(plain) > len(run) / 8 or re.fullmatch(r"[0-9a-f]+|[0-9A-F]+", plain):
        return False
    classes = ["d" if c.isdigit() else "l" if c.islower() else "u" for c in plain]
    changes = sum(a != b for a, b in itertools.pairwise(classes)) / (len(plain) - 1)
    if len(set(classes)) == 3:
        words = sum(map(len, re.findall(r"[a-z]{3,}", plain))) / len(plain)
        return changes >= 0.35 and words < 0.4
    return "d" in classes and len(set(classes)) == 2 and len(plain) >= 32 and changes >= 0.25


def _ipv4(text: str, start: int, end: int) -> Span | None:
    """Let versions (`v1.2.3.4`) and longer numbers (`1.3.6.1.4.1`) be."""
    parts = text[start:end].split(".")
    if len(parts) != 4 or any(len(part) > 3 or int(part) > 255 for part in parts):
        return None
    version = text[start - 1 : start] in ("v", "V") and not text[max(0, start - 2) : start - 1].isalnum()
    return None if version else (start, end)


def _ipv6(text: str, start: int, end: int) -> Span | None:
    # A colon before or behind it belongs to the sentence, as in `fe80::1: unreachable`.
    for first, last in ((start, end), (start, end - 1), (start + 1, end), (start + 1, end - 1)):
        around = text[first - 1 : first] if first else "", text[last : last + 1]
        if any(c.isalnum() for c in around) or not re.search("[0-9A-Fa-f]", text[first:last]):
            continue
        try:
            ipaddress.IPv6Address(text[first:last])
        except ValueError:
            continue
        return first, last
    return None


def _alone(text: str, start: int, end: int) -> Span | None:
    return None if text[max(0, start - 1) : start].isalnum() or text[end : end + 1].isalnum() else (start, end)


# systemd's, as in user@1000.service
_UNITS: Final = (
    ".service", ".socket", ".timer", ".mount", ".automount", ".slice", ".scope", ".target", ".device", ".path",
    ".swap",
)  # fmt: skip
_FILES: Final = (
    ".yaml", ".yml", ".json", ".toml", ".conf", ".cfg", ".ini", ".log", ".txt", ".md", ".py", ".go", ".rs",
    ".js", ".ts", ".java", ".sh", ".sql", ".db", ".csv", ".xml", ".html", ".gz", ".tar", ".zip", ".pem", ".crt",
    ".key", ".lock", ".tmp", ".bak", ".pid", ".sock", ".so", ".exe", ".dll", ".wal", ".tpl", ".prom",
)  # fmt: skip


def _mail(text: str, start: int, end: int) -> Span | None:
    if re.search(r"://[^\s/]*\Z", text[max(0, start - 256) : start]):
        return None  # a user, a password and a host
    return None if text[start:end].lower().endswith(_UNITS) else (start, end)


def _host(text: str, start: int, end: int) -> Span | None:
    """Let files, units and classes (`java.lang.NullPointerException`) be."""
    last = text[start:end].rpartition(".")[2]
    if text[start:end].lower().endswith(_UNITS + _FILES) or not (last.islower() or last.isupper()):
        return None
    return start, end


@dataclass(frozen=True, slots=True)
class Named(Detector):
    """Finds the values behind names. The pattern is of the name and the sign behind it."""

    bare: re.Pattern[str] = BARE
    """A value without quotes."""

    def spans(self, text: str) -> Iterator[Span]:
        """Yield where in `text` the values are."""
        for start, end in values(text, self.pattern.spans(text), self.bare, cache(names_a_secret)):
            span = self.check(text, start, end) if self.check else (start, end)
            if span and span[0] < span[1]:
                yield span


def _detector(
    kind: Kind, pattern: str, check: Check | None = None, *, ignore_case: bool = False, sign: str = ""
) -> Detector:
    return Detector(kind, Pattern(pattern, ignore_case=ignore_case), check, sign)


def built_in() -> tuple[Detector, ...]:
    """Return the detectors that always look."""
    secret = Kind.SECRET
    return (
        _detector(secret, r"(?s)-----BEGIN [A-Z0-9 ]+-----.*?(?:-----END [A-Z0-9 ]+-----|\z)"),
        _detector(
            secret,
            rf"{_AUTHORIZATION}(?:(?:basic|bearer|negotiate|token|(?:api|genie)?-?key|ssws|splunk)\s+([^\s\"'\\,]+)"
            r"|((?:digest|ntlm|aws4|oauth|hawk)[^\r\n]*|[^\s\"'\\,]+))",
            _value,
            ignore_case=True,
        ),
        _detector(secret, rf"{_AUTHORIZATION}[a-z][a-z0-9_-]*[ \t]+([^\s\"'\\,]+)", _key_of_scheme, ignore_case=True),
        Named(secret, Pattern(rf"(?:\b|_)(?:set-)?cookie2?\\*{QUOTE}?\s*:", ignore_case=True), _value, bare=LINE),
        _detector(secret, r"\bbearer\s+([A-Za-z0-9._~+/=-]{8,})", _bearer, ignore_case=True),
        _detector(secret, r"\bbasic\s+([A-Za-z0-9+/_-]{4,}={0,2})", _basic, ignore_case=True),
        _detector(
            secret,
            r"(?i)[a-z][a-z0-9+.-]*(?::|%(?:25)*3a)(?:\\?/|%(?:25)*2f|\\u002f){2}([^\s\"'<>`]*)(?:@|%(?:25)*40)",
            _userinfo,
        ),
        _detector(  # without a scheme, as in Go's MySQL: app:hunter2@tcp(db:3306)/app
            secret, r"([^\s:@/\"'`<>(){}\[\],;=]+:[^\s\"'`<>]+)@[a-z0-9]*\(", sign="@"
        ),
        _detector(
            secret,
            r"(?:^|[^A-Za-z0-9_.%+:/@$-]|//)([A-Za-z0-9_.%+$-]+:[^\s\"'`<>@:/]+)@[A-Za-z0-9_.-]+(?::[0-9]{2,5}\b|/)",
            _login,
            sign="@",
        ),
        _detector(  # Oracle's
            secret,
            r"(?i)(?:^|[^a-z0-9_./@-])([a-z0-9_$#]+/[^\s\"'`<>@/]+)@(?://|[a-z0-9_]*db[0-9]*\b|orcl|xe\b|xepdb"
            r"|[a-z0-9_.-]+:15[0-9]{2}\b)",
            sign="@",
        ),
        Named(secret, Pattern(rf"(?:{_NAMES}){_SUFFIX}{_IS}", ignore_case=True), _value),
        Named(secret, Pattern(r"\b(?:pass|pw|auth|key|apikey|cookie)=", ignore_case=True), _value),
        Named(  # Where they are the names of settings, and no words of a sentence.
            secret,
            Pattern(
                rf"(?:(?m:^)[ \t-]*|[{{,;&?(\[]\s*|{QUOTE})(?:pass|pw|psk|jwts?|tokens|secrets){_IS}"
                rf"|[a-z0-9][_.-](?:pass|pw|psk|jwts?){_IS}|(?-i:[a-z0-9]P)(?:ass|w){_IS}",
                ignore_case=True,
            ),
            _no_count,
        ),
        Named(  # As Kubernetes writes environment variables.
            secret,
            Pattern(
                rf"\b(?:name|key)\\*[\"']?\s*[:=]\s*\\*[\"']?[\w.-]*(?:{_NAMES}|[_.-]pass){_SUFFIX}\\*[\"']?\s*[,;]?\s*"
                r"\\*[\"']?value\\*[\"']?\s*[:=]",
                ignore_case=True,
            ),
            _value,
        ),
        _detector(  # The same with the value first.
            secret,
            r"\bvalue\\*[\"']?\s*[:=]\s*(\\+\"[^\"]*\"|\"(?:[^\"\\]|\\.)*\"|'[^']*'|[^\s,;\"'{\[]+)\s*[,;]?\s*"
            rf"\\*[\"']?(?:name|key)\\*[\"']?\s*[:=]\s*\\*[\"']?[\w.-]*(?:{_NAMES}|[_.-]pass){_SUFFIX}\b",
            _value,
            ignore_case=True,
        ),
        _detector(
            secret, r"\b(?:password|passwd|passphrase|token|secret)\s+(\"[^\"]*\"|'[^']*')", _value, ignore_case=True
        ),
        _detector(
            secret,
            r"(?:^|\s)--?(?:[a-z-]*(?:password|passwd|passphrase|pwd|token|secret|api-?key|access-?key|credentials?)"
            r"|(?:[a-z-]*-)?pass)"
            rf"\s+{_VALUE}",
            _value,
            ignore_case=True,
        ),
        _detector(
            secret,
            r"(?:^|\s)(?:-u|--user|--proxy-user)[ =]?\s*"
            r"(?:\\*'([^\s:'+][^\s:']*:[^']+)|\\*\"([^\s:\"+][^\s:\"]*:[^\"]+)|([^\s:\"']+:[^\s\"']+))",
            _value,
        ),
        _detector(
            secret,
            r"(?:A3T[A-Z0-9]|AKIA|ASIA|ABIA|ACCA|AGPA|AIDA|AROA|AIPA|ANPA|ANVA)[A-Z0-9]{16}"  # AWS
            r"|gh[pousr]_[A-Za-z0-9]{16,}|github_pat_[A-Za-z0-9_]{20,}|gl[a-z]{2,8}-[A-Za-z0-9_-]{16,}"  # Git
            r"|xox[a-z](?:\.xox[a-z])?-[A-Za-z0-9-]{8,}|xapp-[A-Za-z0-9-]{8,}"  # Slack
            r"|(?:[sr]k|pk)_(?:live|test)_[A-Za-z0-9]{8,}|whsec_[A-Za-z0-9+/=]{8,}"  # Stripe
            r"|sk-[A-Za-z0-9_-]{12,}|gsk_[A-Za-z0-9]{16,}|xai-[A-Za-z0-9]{16,}|hf_[A-Za-z0-9]{16,}"  # models' providers
            r"|AIza[A-Za-z0-9_-]{20,}|ya29\.[A-Za-z0-9._-]{16,}|GOCSPX-[A-Za-z0-9_-]{16,}",  # Google
        ),
        _detector(
            secret,
            r"npm_[A-Za-z0-9]{20,}|pypi-[A-Za-z0-9_-]{16,}|do[opr]_v1_[A-Za-z0-9]{16,}|dapi[0-9a-f]{32}"
            r"|SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}|hv[sbr]\.[A-Za-z0-9_-]{16,}|gl(?:sa|c)_[A-Za-z0-9+/=_]{20,}"
            r"|[0-9]{8,10}:AA[A-Za-z0-9_-]{30,}|AGE-SECRET-KEY-1[A-Z0-9]{20,}|dckr_(?:pat|oat)_[A-Za-z0-9_-]{16,}"
            r"|SK[0-9a-f]{32}|key-[0-9a-f]{32}|shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}|NRAK-[A-Z0-9]{20,}"
            r"|eyJ[A-Za-z0-9_-]{10,}(?:\.[A-Za-z0-9_-]*){0,4}",  # JWT, also cut short
        ),
        _detector(
            secret,
            r"(?:hooks\.slack\.com/(?:services|workflows|triggers)|discord(?:app)?\.com/api/webhooks"
            r"|[a-z0-9.-]*webhook\.office\.com|api\.telegram\.org)/([^\s\"'<>]+)",
        ),
        _detector(secret, r"[A-Za-z0-9+/_-]{20,}={0,2}", _random),
        _detector(Kind.EMAIL, r"[\p{L}\p{N}._%+'-]+(?:@|%40)[\p{L}\p{N}-]+(?:\.[\p{L}\p{N}-]+)+", _mail),
        _detector(Kind.MAC, r"(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}|(?:[0-9A-Fa-f]{4}\.){2}[0-9A-Fa-f]{4}", _alone),
        _detector(Kind.IP, r"[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,8}(?:(?:[0-9]{1,3}\.){3}[0-9]{1,3})?", _ipv6),
        _detector(Kind.IP, r"[0-9]+(?:\.[0-9]+)+", _ipv4),
        _detector(Kind.IP, r"\bip-[0-9]{1,3}(?:-[0-9]{1,3}){3}\b"),  # AWS names nodes by their addresses
    )


def hosts() -> tuple[Detector, ...]:
    """Return the detectors of host names."""
    return (
        _detector(Kind.HOST, r"(?:[\p{L}\p{N}_](?:[\p{L}\p{N}_-]*)\.)+[\p{L}]{2,24}\b", _host),
        _detector(Kind.HOST, r"[A-Za-z][A-Za-z0-9+.-]*://(?:[^\s/@\"'<>]*@)?([\p{L}\p{N}_.-]+)"),
    )


def patterns(texts: tuple[str, ...]) -> tuple[Detector, ...]:
    """Return detectors of the operator's own. Raises ValueError for an expression that RE2 cannot read."""
    return tuple(_detector(Kind.PRIVATE, text) for text in texts)
