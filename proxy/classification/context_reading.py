"""Reading a file of context: from YAML to a Context, or to every mistake with its line. `context` has the grammar."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Final

import yaml

from proxy.alert import Alert
from proxy.classification import answers
from proxy.classification.classification import (
    RECOMMENDATION_LENGTH,
    RECOMMENDATIONS,
    SUMMARY_LENGTH,
    Category,
    Classification,
    Confidence,
    Severity,
    Source,
)
from proxy.classification.context import (
    ABOUT_LENGTH,
    ALERT_LENGTH,
    EXAMPLES,
    FILE_LENGTH,
    MATCHERS,
    NAME_LENGTH,
    PROMPTS,
    SERVICES,
    SIZE,
    Context,
    Example,
    OwnPrompt,
    Service,
)
from proxy.classification.templates import TEXT_LIMIT, Template
from proxy.errors import ConfigError
from proxy.matchers import Matcher
from proxy.policy import PER_OBJECT
from proxy.yaml_reading import NULL, YamlReader, short

_KEYS: Final = ("services", "examples", "prompts")
_SERVICE_KEYS: Final = ("name", "about", "matchers")
_EXAMPLE_KEYS: Final = ("alert", "verdict", "matchers")
_PROMPT_KEYS: Final = ("matchers", "file")
_ALERT_KEYS: Final = ("labels", "annotations")
_VERDICT_KEYS: Final = ("severity", "category", "confidence", "summary", "recommendations")

Readable = Callable[[str], Template]
"""Returns the template in the file of a name. Raises ValueError with why it cannot be read."""


def read_file(path: Path, setting: str, limit: int) -> str:
    """Return the text of a file that `setting` names, one character more than `limit` at most. Raises ConfigError."""
    try:
        return _text_of(path, limit)
    except ValueError as exc:
        raise ConfigError([f"{setting}: {exc}"]) from None


def read_context(path: Path, per_object: Collection[str] = PER_OBJECT) -> Context:
    """Return what the file holds; the templates it names are beside it. Raises ConfigError with every mistake."""
    text = read_file(path, "llm.context_file", FILE_LENGTH)
    if len(text) > FILE_LENGTH:
        raise ConfigError([f"llm.context_file: {path} has more than {FILE_LENGTH} characters; keep what helps"])

    def template(name: str) -> Template:
        file = path.parent / name
        return Template(_text_of(file, TEXT_LIMIT), str(file))

    return parse(text, str(path), template, per_object)


def parse(text: str, origin: str, template: Readable, per_object: Collection[str] = PER_OBJECT) -> Context:
    """Return the context `text` holds. Raises ConfigError with every mistake, each as `origin:line: what, what to do`.

    No matcher may be about a label of `per_object`.
    """
    return _Reader(origin, template, per_object).read(text)


def _text_of(path: Path, limit: int) -> str:
    """Return the text of a file, one character more than `limit` at most. Raises ValueError with why it cannot."""
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(limit + 1)
    except OSError as exc:
        raise ValueError(f"cannot read {path}: {exc.strerror}") from None
    except ValueError:  # not UTF-8; or a path with a zero byte
        raise ValueError(f"cannot read {path}: it is not text") from None


class _Reader(YamlReader):
    def __init__(self, origin: str, template: Readable, per_object: Collection[str]) -> None:
        super().__init__(origin, SIZE)
        self._template = template
        self._per_object = per_object

    def read(self, text: str) -> Context:
        parts = self.mapping(self.compose(text), _KEYS)
        found = Context(
            services=tuple(self._services(self.items(parts.get("services"), SERVICES, "services"))),
            examples=tuple(self._examples(self.items(parts.get("examples"), EXAMPLES, "examples"))),
            prompts=tuple(self._prompts(self.items(parts.get("prompts"), PROMPTS, "prompts"))),
        )
        self.finish()
        return found

    def _services(self, nodes: Iterable[yaml.Node]) -> Iterator[Service]:
        lines: dict[tuple[str, frozenset[str]], str] = {}
        for node in nodes:
            row = self._row(node, _SERVICE_KEYS, {"name": "checkout", "about": "Takes the money."})
            service = Service(
                name=self._line(row.get("name"), "name", NAME_LENGTH),
                about=self._line(row.get("about"), "text", ABOUT_LENGTH),
                matchers=self._matchers(row),
                at=self.at(node),
            )
            key = service.name, frozenset(map(str, service.matchers))
            if service.name and not self.full and (at := lines.setdefault(key, service.at)) != service.at:
                self.note(node, f"{short(service.name)} stands at {at} already, for the same alerts; keep one")
            yield service

    def _examples(self, nodes: Iterable[yaml.Node]) -> Iterator[Example]:
        for node in nodes:
            row = self._row(node, _EXAMPLE_KEYS, {"alert": "{labels: {alertname: DiskFull}}", "verdict": "{…}"})
            alert, verdict = self._alert(row.get("alert")), self._verdict(row.get("verdict"))
            matchers = self._matchers(row)
            if alert is not None and verdict is not None:
                yield Example(alert, verdict, matchers, self.at(node))

    def _prompts(self, nodes: Iterable[yaml.Node]) -> Iterator[OwnPrompt]:
        for node in nodes:
            row = self._row(node, _PROMPT_KEYS, {"matchers": "['team=\"db\"']", "file": "db.jinja"})
            matchers = self._matchers(row)
            if isinstance(given := row.get("matchers"), yaml.SequenceNode) and not given.value:
                self.note(given, "no matchers; the template for all alerts is llm.prompt_file")
            file = row.get("file")
            name = self.text(file)
            if file is None or name is None:
                continue
            try:
                yield OwnPrompt(matchers, self._template(name), self.at(node))
            except ValueError as exc:
                self.note(file, str(exc))

    def _alert(self, node: yaml.Node | None) -> Alert | None:
        if node is None:
            return None
        parts = self.mapping(node, _ALERT_KEYS)
        labels, annotations = (self.texts_by_name(parts.get(key), ALERT_LENGTH, key) for key in _ALERT_KEYS)
        if not labels and isinstance(node, yaml.MappingNode):
            self.note(node, "the alert has no labels, want for example labels: {alertname: DiskFull}")
        size = sum(map(len, (*labels, *labels.values(), *annotations, *annotations.values())))
        if size > ALERT_LENGTH:
            self.note(node, f"an alert of {size} characters, want at most {ALERT_LENGTH}: keep what tells")
        return Alert(labels, annotations)

    def _verdict(self, node: yaml.Node | None) -> Classification | None:
        if node is None:
            return None
        row = self._row(
            node,
            _VERDICT_KEYS,
            {"severity": "info", "category": "capacity", "confidence": "high", "summary": "Mails go out late."},
        )
        severity = self.choice(row.get("severity"), Severity)
        category = self.choice(row.get("category"), Category)
        confidence = self.choice(row.get("confidence"), Confidence)
        summary = self._said(row.get("summary"), "summary", SUMMARY_LENGTH)
        steps = self.items(row.get("recommendations"), RECOMMENDATIONS, "recommendations")
        said = tuple(self._said(step, "recommendation", RECOMMENDATION_LENGTH) for step in steps)
        if severity is None or category is None or confidence is None:
            return None
        return Classification(severity, category, confidence, Source.LLM, summary, said)

    def _said(self, node: yaml.Node | None, what: str, length: int) -> str:
        """Return a text as a model may say it: what is taken out of its words should not be shown to it as good."""
        text = self._line(node, what, length)
        if node is not None and answers.plain(text) != text:
            self.note(node, f"{what} with a link, an address or a tag, which are taken out of answers; leave it out")
        return text

    def _line(self, node: yaml.Node | None, what: str, length: int) -> str:
        """Return a text of at most `length` characters, in one line whatever its layout; empty when there is none."""
        return self.bounded(node, " ".join((self.text(node) or "").split()), what, length)

    def _row(self, node: yaml.Node, keys: Collection[str], wanted: dict[str, str]) -> dict[str, yaml.Node]:
        """Return the values of an entry, which needs those that are `wanted`, such as; null is none."""
        row = {key: value for key, value in self.mapping(node, keys).items() if value.tag != NULL}
        if isinstance(node, yaml.MappingNode):
            for key, such_as in wanted.items():
                if key not in row:
                    self.note(node, f"{key} is missing, want for example {key}: {such_as}")
        return row

    def _matchers(self, row: dict[str, yaml.Node]) -> tuple[Matcher, ...]:
        found = []
        for matcher, at in self.matchers(row.get("matchers"), MATCHERS):
            if matcher.name in self._per_object:
                self.note(
                    at,
                    f"{short(matcher.name)} is one of llm.object_labels: alerts that differ in it share a verdict; "
                    "match another label",
                )
            found.append(matcher)
        return tuple(found)
