"""Settings from their sources: flag over environment over file over default.

Every mistake of every source is found before the first is reported. Each source yields what it gives as text, with the
place it stands at; from there on all are treated alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import yaml

from proxy.config.catalog import CATALOG, Setting
from proxy.config.kinds import Secret, SecretKind, Section, closest, did_you_mean
from proxy.config.remark import Remark
from proxy.config.settings import Settings
from proxy.errors import ConfigError

S = TypeVar("S", bound=Section)


@dataclass(frozen=True, slots=True)
class Loaded:
    settings: Settings
    warnings: tuple[str, ...]
    """Each begins with where it stands, as in ConfigError."""
    origins: Mapping[str, str]
    """Where each key's value is from: `default`, `LLM_MODEL`, `config.yaml:7` or `--llm.model`."""


def load(file: Path | None = None, *, environ: Mapping[str, str], flags: Mapping[str, Sequence[str]] = {}) -> Loaded:
    """Return the settings that hold. Raises ConfigError with all mistakes.

    `flags` has the key of a setting (`llm.model`) and the values given for its flag; the last one holds, unless the
    setting is a list.
    """
    report = Report()
    known = {setting.key: setting for setting in CATALOG}
    values, given = read(known, report, file, environ, flags)
    settings = filled(Settings, values)
    origins = {key: given[key].origin if key in given else "default" for key in known}
    for remark in settings.conflicts():
        # One about a value that was refused would speak of its default.
        if report.wrong.isdisjoint(remark.keys):
            report.problem(_place(remark, origins), remark.message)
    if report.problems:
        raise ConfigError(report.problems)
    report.warnings += (f"{_place(remark, origins)}: {remark.message}" for remark in settings.cautions())
    return Loaded(settings, tuple(report.warnings), origins)


def _place(remark: Remark, origins: Mapping[str, str]) -> str:
    return next((origins[key] for key in remark.keys if origins[key] != "default"), remark.keys[0])


def filled(section: type[S], values: Mapping[str, Any], prefix: str = "") -> S:
    """Return a `section` with `values`, whose keys have a dot after each section, and defaults for the rest."""
    given: dict[str, Any] = {}
    for name, hint in get_type_hints(section).items():
        key = prefix + name
        if isinstance(hint, type) and issubclass(hint, Section):
            given[name] = filled(hint, values, key + ".")
        elif key in values:
            given[name] = values[key]
    return section(**given)


@dataclass(slots=True)
class Report:
    """Collects what is to be said about the sources."""

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    wrong: set[str] = field(default_factory=set)
    """Keys that have a problem somewhere."""

    def problem(self, where: str, message: str, key: str = "") -> None:
        self.problems.append(f"{where}: {message}")
        self.wrong.add(key)


@dataclass(frozen=True, slots=True)
class _Text:
    where: str
    """What a message about it begins with; in a file that is the line and the key."""
    text: str
    variables: tuple[str, ...] = ()
    """Whose values became part of it, as they are to be shown."""


@dataclass(frozen=True, slots=True)
class _Given:
    """What one source gives for one setting."""

    setting: Setting
    origin: str
    where: str
    texts: Sequence[_Text]
    """One, unless the setting is a list."""


def read(
    known: Mapping[str, Setting],
    report: Report,
    file: Path | None,
    environ: Mapping[str, str],
    flags: Mapping[str, Sequence[str]],
) -> tuple[dict[str, Any], dict[str, _Given]]:
    """Return values by key, and what they were made of. A setting that nobody gives or that is wrong has no value."""
    values: dict[str, Any] = {}
    given: dict[str, _Given] = {}
    for source in chain(
        _File(file, known, environ, report).read() if file else (),
        _from_environment(known, environ),
        _from_flags(known, flags, report),
    ):
        key = source.setting.key
        parsed = [value for text in source.texts for value in _parsed(source.setting, text, report)]
        if len(parsed) == len(source.texts):
            values[key] = tuple(parsed) if source.setting.is_list else parsed[0]
            given[key] = source
    _read_secrets(known, values, given, report)
    return values, given


def _parsed(setting: Setting, text: _Text, report: Report) -> Iterator[Any]:
    try:
        yield setting.kind.parse(text.text)
    except ValueError as exc:
        message = str(exc)
        if text.variables:  # any of them may be a secret that went astray
            message = f"bad value after expanding {', '.join(text.variables)}; {setting.kind.want}"
        report.problem(text.where, message, setting.key)


def _from_environment(known: Mapping[str, Setting], environ: Mapping[str, str]) -> Iterator[_Given]:
    for setting in known.values():
        name = setting.variable
        text = environ.get(name, "")
        parts = split_list(text) if setting.is_list else [text]
        texts = [_Text(name, part) for part in parts if part.strip()]
        if texts:
            yield _Given(setting, name, name, texts)


def split_list(text: str) -> list[str]:
    """Return what stands between the commas of `text`; one in double quotes or braces belongs to its entry.

    `{alertname="A",team="web"},severity="info"` are two lists of matchers.
    """
    entries = [""]
    for piece in _PIECE.findall(text):
        if piece == ",":
            entries.append("")
        else:
            entries[-1] += piece
    return entries


_QUOTED = r'"(?:[^"\\]|\\.)*"'
_PIECE = re.compile(rf"""{_QUOTED}|\{{(?:[^{{}}"]|{_QUOTED})*\}}|.""", re.DOTALL)


def _from_flags(known: Mapping[str, Setting], flags: Mapping[str, Sequence[str]], report: Report) -> Iterator[_Given]:
    for key, given in flags.items():
        setting = known.get(key)
        if setting is None:
            hint = closest(f"--{key}", (other.flag for other in known.values()))
            report.problem(f"--{key}", f"unknown flag{did_you_mean(hint)}")
        elif setting.is_secret and given:
            advice = f"use the variable {setting.variable} or {setting.flag}-file"
            report.problem(setting.flag, f"a secret is never a flag, everybody can read those; {advice}", key)
        elif given:
            texts = [_Text(setting.flag, text) for text in (given if setting.is_list else given[-1:])]
            yield _Given(setting, setting.flag, setting.flag, texts)


def _read_secrets(
    known: Mapping[str, Setting], values: dict[str, Any], given: dict[str, _Given], report: Report
) -> None:
    """Put the content of `…_file` where the secret belongs; there is no such field in the settings."""
    for setting in known.values():
        path = values.pop(setting.key, None) if setting.file_of else None
        if path is None:
            continue
        source = given[setting.key]
        secret = known[setting.file_of]
        if values.get(secret.key):
            report.problem(
                source.where, f"{secret.key} is given too ({given[secret.key].origin}), leave out one of the two"
            )
            continue
        kind = secret.kind
        assert isinstance(kind, SecretKind)  # noqa: S101 # nothing else has such a file
        content, trouble = _secret_in(path, kind)
        if not trouble:
            values[secret.key] = content
            given[secret.key] = source
        elif kind.needed:
            report.problem(source.where, trouble)
        else:
            report.warnings.append(f"{source.where}: {trouble}; {secret.key} stays empty")


def read_secret(path: Path, kind: SecretKind) -> Secret:
    """Return the secret in a file. Raises OSError, and ValueError with what is wrong, which does not repeat it."""
    try:
        text = path.read_text(encoding="utf-8")
    except ValueError:  # not UTF-8; or a path with a zero byte
        raise ValueError("cannot read the file: it is not text") from None
    return Secret(kind.parse(text).reveal(), path)


def _secret_in(path: Path, kind: SecretKind) -> tuple[Secret, str]:
    """Return the secret, and what went wrong; that leaves out the path, which may be the secret in the wrong place."""
    try:
        secret = read_secret(path, kind)
    except OSError as exc:
        return Secret(), f"cannot read the file: {exc.strerror}"
    except ValueError as exc:
        return Secret(), str(exc)
    return secret, "" if secret else "the file is empty"


class _File:
    """The YAML file. Its nodes are walked rather than its values, because a node knows its line."""

    def __init__(self, path: Path, known: Mapping[str, Setting], environ: Mapping[str, str], report: Report) -> None:
        self._path = path
        self._known = known
        self._environ = environ
        self._report = report

    def read(self) -> Iterator[_Given]:
        try:
            content = self._path.read_bytes()
        except OSError as exc:
            self._report.problem(str(self._path), f"cannot read the file: {exc.strerror}")
            return
        try:
            root = yaml.compose(content.decode(), Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as exc:
            mark = exc.problem_mark or exc.context_mark
            # An alias or a tag that is quoted here may be a secret that begins with * or !.
            problem = re.sub(r" ?'(?!<)[^']{3,}'", "", exc.problem or "unreadable")
            self._report.problem(f"{self._path}:{mark.line + 1 if mark else 1}", f"not valid YAML: {problem}")
        except (yaml.reader.ReaderError, UnicodeDecodeError) as exc:
            at = exc.start if isinstance(exc, UnicodeDecodeError) else len(content.decode()[: exc.position].encode())
            line = content[:at].count(b"\n") + 1
            self._report.problem(f"{self._path}:{line}", "not valid YAML: want UTF-8 text without control characters")
        except (ValueError, OverflowError, RecursionError):
            # PyYAML's own: an escape such as "\Uffffffff", or brackets in brackets by the thousand
            self._report.problem(str(self._path), "not valid YAML: an impossible escape, or nested too deeply")
        else:
            if root is not None and not _is_null(root):
                yield from self._section(root, "")

    def _section(self, node: yaml.Node, prefix: str) -> Iterator[_Given]:
        if not isinstance(node, yaml.MappingNode):
            name = prefix.rstrip(".")
            self._report.problem(
                self._at(node, name), "want keys and values here" if name else "want sections such as llm: at the top"
            )
            return
        lines: dict[str, int] = {}
        for key_node, value in node.value:
            # Anything else is not repeated: `{api_key:sk-…}` without a space is one key.
            if not isinstance(key_node, yaml.ScalarNode) or not re.fullmatch(r"[\w.-]+", key_node.value):
                self._report.problem(self._at(key_node), "want a plain name as key, then a colon and a space")
                continue
            key = prefix + key_node.value
            if "." in key_node.value:
                self._report.problem(
                    self._at(key_node), f"{key} has a dot, write sections as keys with keys below them"
                )
                continue
            if key in lines:
                self._report.problem(self._at(key_node), f"duplicate key {key}, it stands on line {lines[key]} already")
                continue
            lines[key] = key_node.start_mark.line + 1
            if key in self._known:
                yield from self._setting(self._known[key], key_node, value)
            elif not any(other.startswith(key + ".") for other in self._known):
                hint = did_you_mean(self._suggestion(key_node.value, prefix))
                self._report.problem(self._at(key_node), f"unknown key {key}{hint}")
            elif not _is_null(value):
                yield from self._section(value, key + ".")

    def _setting(self, setting: Setting, key_node: yaml.Node, node: yaml.Node) -> Iterator[_Given]:
        if _is_null(node):
            return
        nodes = [node]
        if setting.is_list and not (setting.kind.one_will_do and isinstance(node, yaml.ScalarNode)):
            if not isinstance(node, yaml.SequenceNode):
                self._report.problem(self._at(node, setting.key), "want a list, each entry after a -", setting.key)
                return
            nodes = node.value
        found = [self._scalar(setting, node) for node in nodes]
        texts = [text for text in found if text is not None]
        # A list may be empty, or become empty; one value that is nothing is as good as none.
        if texts or (setting.is_list and isinstance(node, yaml.SequenceNode)):
            yield _Given(setting, self._at(key_node), self._at(key_node, setting.key), texts)

    def _scalar(self, setting: Setting, node: yaml.Node) -> _Text | None:
        """Return the text of `node`; None when it is wrong, or empty because its variables are."""
        where = self._at(node, setting.key)
        if not isinstance(node, yaml.ScalarNode):
            self._report.problem(where, "want a single value, not a list or keys", setting.key)
            return None
        if not node.tag.startswith("tag:yaml.org,2002:"):
            self._report.problem(where, "tags have no meaning here, quote a value that begins with !", setting.key)
            return None
        names = tuple(dict.fromkeys(name for name in _VARIABLE.findall(node.value) if name))
        unset = [name for name in names if not self._environ.get(name)]
        self._report.warnings += (f"{where}: variable {name} is not set, taken as empty" for name in unset)
        try:
            text = _VARIABLE.sub(self._expanded, node.value)
        except ValueError as exc:
            self._report.problem(where, str(exc), setting.key)
            return None
        if unset and not text.strip():
            return None
        return _Text(where, text, tuple(f"${{{name}}}{' (not set)' if name in unset else ''}" for name in names))

    def _expanded(self, found: re.Match[str]) -> str:
        if found[1]:
            return self._environ.get(found[1], "")
        if found[0] == "$${":
            return "${"
        raise ValueError("${ begins a variable, as in ${LLM_API_KEY}; write $${ for these two characters themselves")

    def _suggestion(self, name: str, prefix: str) -> str:
        elsewhere = [key for key in self._known if key.endswith(f".{name}")]
        if len(elsewhere) == 1:
            return elsewhere[0]
        siblings = {key.removeprefix(prefix).split(".")[0] for key in self._known if key.startswith(prefix)}
        sibling = closest(name, sorted(siblings))
        return sibling and prefix + sibling

    def _at(self, node: yaml.Node, key: str = "") -> str:
        place = f"{self._path}:{node.start_mark.line + 1}"
        return f"{place}: {key}" if key else place


_VARIABLE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)\}|\$\{")


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"
