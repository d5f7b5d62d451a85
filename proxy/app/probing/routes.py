"""What Alertmanager's configuration does with our labels: routes, inhibition and grouping.

It is read as `GET /api/v2/status` shows it, which is as Alertmanager understood it. Only the parts that route are
looked into: receivers hold secrets, and there may be thousands of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

import yaml

from proxy.app.probing.added_labels import AddedLabels, Fate, Judged
from proxy.app.probing.findings import Finding, Level
from proxy.errors import ConfigError
from proxy.matchers import Matcher, Op, parse_matchers
from proxy.yaml_composing import compose

CHECK: Final = "routes"
_LENGTH: Final = 4 << 20
"""Characters of the parts that are looked into."""
_PART: Final = re.compile(r"^(route|inhibit_rules):", re.MULTILINE)
_NEXT_PART: Final = re.compile(r"^[^\s#-]", re.MULTILINE)
_SUFFIXES: Final = (("", Op.EQUAL), ("_re", Op.REGEX))


def routed(configuration: str, added: AddedLabels) -> Iterator[Finding]:
    """Yield what is wrong with the uses of our labels in a configuration, and what is worth knowing."""
    parts = "".join(_parts(configuration))
    if len(parts) > _LENGTH:
        yield Finding(CHECK, Level.WARNING, f"not looked at: routes of more than {_LENGTH} characters")
        return
    try:
        root = compose(parts, "Alertmanager's configuration")
    except ConfigError as exc:
        yield Finding(CHECK, Level.WARNING, f"not looked at: {exc.problems[0]}")
        return
    route = _get(root, "route")
    if route is None:
        yield Finding(CHECK, Level.WARNING, "not looked at: Alertmanager shows no routes of its configuration")
        return
    found = [*_route(route, "route", (), added), *_inhibition(_get(root, "inhibit_rules"), added)]
    yield from _told(found, added)


def _told(found: Sequence[Finding | Judged], added: AddedLabels) -> Iterator[Finding]:
    findings = [one for one in found if isinstance(one, Finding)]
    uses = [one for one in found if isinstance(one, Judged)]
    yield from findings
    waiting = [str(one.matcher) for one in uses if one.fate is Fate.NOT_IN_THIS_MODE]
    if waiting:
        yield Finding(
            CHECK,
            Level.WARNING,
            f"{len(waiting)} matcher{'s' if len(waiting) > 1 else ''} on our labels, {waiting[0]} the first: in mode "
            f"{added.mode} no new alert gets them, so these routes wait for mode enriched",
        )
    if any(one.level is not Level.OK for one in findings) or waiting:
        return
    n = len(uses)
    message = (
        f"{n} matcher{'s' if n > 1 else ''} on our labels, which can match"
        if n
        else "nothing in Alertmanager's routes goes by our labels; they are shown, and change nothing"
    )
    yield Finding(CHECK, Level.OK, message)


def _route(node: yaml.Node, place: str, above: tuple[Judged, ...], added: AddedLabels) -> Iterator[Finding | Judged]:
    receiver = _text(_get(node, "receiver"))
    where = f"{place} (receiver {receiver[:60]})" if receiver else place
    own = []
    for one in _matchers(node, "match", "matchers", added):
        if isinstance(one, str):
            yield Finding(CHECK, Level.WARNING, f"{where}: cannot be read: {one}")
            continue
        own.append(one)
        yield one
        yield from _about(one, where, "this route never matches", "this matcher sorts nothing out")
    together = (*above, *own)
    if own and not any(one.fate is Fate.NEVER for one in together) and (name := added.contradicts(together)):
        yield Finding(
            CHECK,
            Level.ERROR,
            f"{where}: with the matchers of the routes around it no value of {name} is left; this route never matches",
        )
    for entry in _items(_get(node, "group_by")):
        if added.concerns(name := _text(entry)):
            yield _grouped(name, where, added)
    for n, inner in enumerate(_items(_get(node, "routes"))):
        yield from _route(inner, f"{place}.routes[{n}]", together, added)


def _grouped(name: str, where: str, added: AddedLabels) -> Finding:
    if why := added.unknown(name):
        return Finding(CHECK, Level.WARNING, f"{where}: group_by {name} has no effect: {why}")
    return Finding(
        CHECK,
        Level.OK,
        f"{where}: group_by {name}: alerts of another verdict notify by themselves; on the first day those that fire "
        "already have no label, and are a group of their own",
    )


def _inhibition(rules: yaml.Node | None, added: AddedLabels) -> Iterator[Finding | Judged]:
    for n, rule in enumerate(_items(rules)):
        where = f"inhibit_rules[{n}]"
        for side in ("source", "target"):
            judged: list[Judged] = []
            for one in _matchers(rule, f"{side}_match", f"{side}_matchers", added):
                if isinstance(one, str):
                    yield Finding(CHECK, Level.WARNING, f"{where}: cannot be read: {one}")
                    continue
                judged.append(one)
                yield one
                yield from _about(one, f"{where} {side}", "this rule never inhibits", "this matcher sorts nothing out")
                if one.fate is Fate.DEPENDS:
                    yield Finding(
                        CHECK,
                        Level.WARNING,
                        f"{where} {side}: {one.matcher}: whether alerts are muted depends on what a model said about "
                        "one of them; go by labels of their author",
                    )
            if not any(one.fate is Fate.NEVER for one in judged) and (name := added.contradicts(judged)):
                yield Finding(
                    CHECK, Level.ERROR, f"{where} {side}: no value of {name} is left; this rule never inhibits"
                )
        for entry in _items(_get(rule, "equal")):
            if added.concerns(name := _text(entry)):
                yield _equal(name, where, added)


def _equal(name: str, where: str, added: AddedLabels) -> Finding:
    if why := added.unknown(name):
        return Finding(CHECK, Level.WARNING, f"{where}: equal {name} has no effect: {why}")
    return Finding(
        CHECK,
        Level.ERROR,
        f"{where}: equal {name}: an alert inhibits another only when both have the same verdict, so inhibition fails "
        "as verdicts differ, and between labelled alerts and those that go bare; take it out",
    )


def _about(one: Judged, where: str, never: str, always: str) -> Iterator[Finding]:
    match one.fate:
        case Fate.NEVER:
            yield Finding(CHECK, Level.ERROR, f"{where}: {one.matcher} can never match: {one.why}; {never}")
        case Fate.UNLIKELY:
            yield Finding(CHECK, Level.WARNING, f"{where}: {one.matcher} matches none of our alerts: {one.why}")
        case Fate.ALWAYS:
            yield Finding(CHECK, Level.WARNING, f"{where}: {one.matcher} holds for every alert: {one.why}; {always}")


def _matchers(node: yaml.Node, old: str, new: str, added: AddedLabels) -> Iterator[Judged | str]:
    """Yield what becomes of the matchers on our labels, in the old syntax and the new one; a text: why one is unread.

    Those on other labels are not made: there may be thousands of regular expressions among them.
    """
    for suffix, op in _SUFFIXES:
        for key, value in _pairs(_get(node, old + suffix)):
            if added.concerns(name := _text(key)):
                try:
                    yield added.judged(Matcher(name, op, _text(value)))
                except ValueError as exc:
                    yield str(exc)
    for entry in _items(_get(node, new)):
        text = _text(entry)
        if not added.mentioned(text):
            continue
        try:
            found = parse_matchers(text)
        except ValueError as exc:
            yield str(exc)
            continue
        yield from (one for one in map(added.judged, found) if one.fate is not Fate.OTHERS)


def _parts(configuration: str) -> Iterator[str]:
    """Yield the text of the top-level parts that are looked into."""
    for part in _PART.finditer(configuration):
        following = _NEXT_PART.search(configuration, part.end())
        text = configuration[part.start() : following.start() if following else len(configuration)]
        yield text if text.endswith("\n") else text + "\n"


def _get(node: yaml.Node | None, key: str) -> yaml.Node | None:
    return next((value for name, value in _pairs(node) if _text(name) == key), None)


def _pairs(node: yaml.Node | None) -> Sequence[tuple[yaml.Node, yaml.Node]]:
    return node.value if isinstance(node, yaml.MappingNode) else ()


def _items(node: yaml.Node | None) -> Sequence[yaml.Node]:
    return node.value if isinstance(node, yaml.SequenceNode) else ()


def _text(node: yaml.Node | None) -> str:
    return str(node.value) if isinstance(node, yaml.ScalarNode) else ""
