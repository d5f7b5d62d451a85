"""The declared settings as a list, and what is made of it: flags, the reference page, the printed configuration."""

from __future__ import annotations

import dataclasses
import inspect
import types
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from operator import attrgetter
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from proxy.config.kinds import BooleanKind, ChoiceKind, FileKind, Kind, Secret, SecretKind, Section, TextKind
from proxy.config.settings import Settings


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting, or the file of a secret one."""

    key: str
    kind: Kind[Any]
    default: Any
    description: str
    is_list: bool = False
    """`kind` is then that of an entry."""
    file_of: str = ""
    """The key of the secret that is read from the file this setting names."""

    @property
    def variable(self) -> str:
        return self.key.upper().replace(".", "_")

    @property
    def flag(self) -> str:
        return "--" + self.key.replace("_", "-")

    @property
    def is_secret(self) -> bool:
        return isinstance(self.kind, SecretKind)

    def show(self, value: Any) -> list[str]:
        """Return the texts that stand for `value`: one, none for an empty one, or one for each entry of a list."""
        values = value if self.is_list else () if value is None else (value,)
        return [text for text in map(self.kind.show, values) if text]


def declared(section: type[Section], prefix: str = "") -> Iterator[Setting]:
    """Yield the settings of `section` and of the sections in it, in the order of their declaration."""
    hints = get_type_hints(section, include_extras=True)
    for field in dataclasses.fields(section):  # type: ignore[arg-type]  # every Section is a dataclass
        key, hint = prefix + field.name, hints[field.name]
        if isinstance(hint, type) and issubclass(hint, Section):
            yield from declared(hint, key + ".")
            continue
        kind, is_list = _kind(hint)
        yield Setting(key, kind, field.default, field.metadata.get("description", ""), is_list)
        if isinstance(kind, SecretKind):
            yield Setting(
                f"{key}_file",
                FileKind(),
                None,
                f"File that holds `{key}`, in place of it. Line ends after it do not count."
                + ("" if kind.needed else " If it cannot be read the proxy starts without, and says so."),
                file_of=key,
            )


def _kind(hint: Any) -> tuple[Kind[Any], bool]:
    """Return the kind that reads a field annotated with `hint`, and whether the field is a list of them."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        kind = next((extra for extra in args[1:] if isinstance(extra, Kind)), None)
        return (kind, False) if kind is not None else _kind(args[0])
    if origin in (Union, types.UnionType):
        (hint,) = (arg for arg in args if arg is not types.NoneType)
        return _kind(hint)
    if origin is tuple:
        return _kind(args[0])[0], True
    if hint is Secret:
        return SecretKind(), False
    if hint is bool:
        return BooleanKind(), False
    if hint is str:
        return TextKind(), False
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return ChoiceKind(hint), False
    raise TypeError(f"no kind of setting reads {hint}")


CATALOG = tuple(declared(Settings))


@dataclass(frozen=True, slots=True)
class Flag:
    """What a command line parser needs to know about one setting."""

    name: str
    """As in `--llm.timeout`."""
    key: str
    """As in `llm.timeout`; under it `load` expects the values."""
    help: str
    default: str
    """Empty when there is none."""
    metavar: str
    is_bool: bool
    is_list: bool
    """May be given repeatedly, one entry each."""
    is_secret: bool
    """To be taken, unseen in the help, and handed to `load`, which refuses it with advice. A parser that does not
    know the name would quote the secret in its complaint, or take it for an abbreviated `…-file`."""


def flags() -> tuple[Flag, ...]:
    """Return the flags of all settings, in the order of the reference."""
    return tuple(
        Flag(
            name=setting.flag,
            key=setting.key,
            help=setting.description.replace("`", ""),
            default=",".join(setting.show(setting.default)),
            metavar=setting.kind.metavar,
            is_bool=isinstance(setting.kind, BooleanKind),
            is_list=setting.is_list,
            is_secret=setting.is_secret,
        )
        for setting in CATALOG
    )


def variables() -> frozenset[str]:
    """Return the names of the environment variables of all settings, those of the files of secrets among them."""
    return frozenset(setting.variable for setting in CATALOG)


def reference() -> str:
    """Return a table in Markdown for each section."""
    return "\n".join(tables(Settings))


def tables(section: type[Section], prefix: str = "") -> Iterator[str]:
    """Yield a heading and a table for each section in `section`, however deep."""
    for name, inner in get_type_hints(section).items():
        if not (isinstance(inner, type) and issubclass(inner, Section)):
            continue
        key = prefix + name
        rows = [_row(setting) for setting in declared(inner, key + ".") if "." not in setting.key[len(key) + 1 :]]
        heading = f"## {key}\n\n{inspect.cleandoc(inner.__doc__ or '')}\n"
        columns = "| Key | Variable | Flag | Type | Default | Description |\n|---|---|---|---|---|---|\n"
        yield f"{heading}\n{columns}{''.join(rows)}" if rows else heading
        yield from tables(inner, key + ".")


def _row(setting: Setting) -> str:
    cells = [
        f"`{setting.key}`",
        f"`{setting.variable}`",
        "" if setting.is_secret else f"`{setting.flag}`",
        f"list of {setting.kind.name}" if setting.is_list else setting.kind.name,
        ", ".join(f"`{text}`" for text in setting.show(setting.default)),
        setting.description,
    ]
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |\n"


def masked(settings: Settings) -> dict[str, Any]:
    """Return the settings as nested dictionaries to print: secrets hidden, durations and addresses as text."""
    shown: dict[str, Any] = {}
    for setting in CATALOG:
        if setting.file_of:
            continue
        *sections, name = setting.key.split(".")
        inner = shown
        for section in sections:
            inner = inner.setdefault(section, {})
        value = _value(settings, setting)
        texts = setting.show(value)
        if setting.is_list:
            inner[name] = texts
        elif value is None or isinstance(value, bool | float):
            inner[name] = value
        else:
            text = "".join(texts)
            inner[name] = value if isinstance(value, int) and text.isdecimal() else text  # `auto`, `64MiB`
    return shown


def differing(one: Settings, other: Settings) -> list[str]:
    """Return the keys of the settings that differ, secrets among them."""
    return sorted(s.key for s in CATALOG if not s.file_of and _value(one, s) != _value(other, s))


def _value(settings: Settings, setting: Setting) -> Any:
    return attrgetter(setting.key)(settings)
