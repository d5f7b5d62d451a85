"""The text around an alert, as a template of Jinja2 that can do little.

    {% block system %} what the model is told, the same for all alerts {% endblock %}
    {% block user %}   what it is shown of one alert                   {% endblock %}

It is the operator's own text, so the limits are against slips rather than against malice: loops, ranges and the text
that comes out are bounded, some of what makes long texts of short ones is refused, and a mistake is said with its line.
No file is read from within it. What an alert says is a value and never part of the template.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import jinja2

TEXT_LIMIT: Final = 64 * 1024
"""Characters of a template."""
OUTPUT_LIMIT: Final = 500_000
"""Characters of one message. The longest alert, all of it escaped, is a little shorter."""
ROUNDS: Final = 10_000
"""Turns of all loops together."""
RANGE: Final = 1000
"""The longest `range`."""

_METHODS: Final = frozenset({"endswith", "get", "items", "keys", "lower", "startswith", "upper", "values"})
_FILTERS: Final = (
    "capitalize", "count", "d", "default", "dictsort", "first", "int", "items", "join", "last", "length", "list",
    "lower", "replace", "sort", "string", "title", "tojson", "trim", "truncate", "unique", "upper", "wordcount",
)  # fmt: skip
_ROUND: Final = "_round"


class TemplateError(Exception):
    """The template cannot be used. The message says why, never what an alert says."""

    def __init__(self, name: str, line: int, message: str) -> None:
        super().__init__(message)
        self.name = name
        """Of its file."""
        self.line = line


@dataclass(frozen=True)
class Template:
    """Two messages in the making. Jinja2 is imported at the first use."""

    text: str
    name: str
    """Of its file."""

    def system(self, constants: Mapping[str, object]) -> str:
        """Return what the model is told. Raises TemplateError."""
        return self._render("system", constants)

    def user(self, constants: Mapping[str, object], alert: Mapping[str, object]) -> str:
        """Return what the model is shown. Raises TemplateError."""
        return self._render("user", {**constants, **alert})

    def _render(self, block: str, values: Mapping[str, object]) -> str:
        import jinja2

        left = iter(range(ROUNDS))

        def one_round() -> str:
            if next(left, None) is None:
                raise jinja2.TemplateRuntimeError(f"more than {ROUNDS} turns of its loops")
            return ""

        template, begins = self._compiled
        pieces, length = [], 0
        try:
            try:
                for piece in template.blocks[block](template.new_context({**values, _ROUND: one_round})):
                    pieces.append(piece)
                    length += len(piece)
                    if length > OUTPUT_LIMIT:
                        raise jinja2.TemplateRuntimeError(f"more than {OUTPUT_LIMIT} characters of text")
            except Exception:  # noqa: BLE001 # it raises again, with the template's own lines
                template.environment.handle_exception()
        except Exception as exc:  # noqa: BLE001 # a template can fail in every way that Python can
            raise TemplateError(self.name, self._line(exc) or begins[block], _why(exc, values)) from None
        return "".join(pieces)

    def _line(self, exc: Exception) -> int | None:
        lines = [frame.lineno for frame in traceback.extract_tb(exc.__traceback__) if frame.filename == self.name]
        return lines[-1] if lines else None

    @cached_property
    def _compiled(self) -> tuple[jinja2.Template, Mapping[str, int]]:
        """The template, and the lines on which its blocks begin."""
        import jinja2

        if len(self.text) > TEXT_LIMIT:
            raise TemplateError(self.name, 1, f"is longer than {TEXT_LIMIT} characters")
        environment = _environment()
        try:
            tree = environment.parse(self.text, filename=self.name)
            begins = _restrict(tree, environment)
            code = environment.compile(tree, filename=self.name)
        except jinja2.TemplateSyntaxError as exc:
            raise TemplateError(self.name, exc.lineno, exc.message or "unreadable") from None
        except RecursionError:
            raise TemplateError(self.name, 1, "is nested too deeply") from None
        return jinja2.Template.from_code(environment, code, dict(environment.globals)), begins


def _why(exc: Exception, values: Mapping[str, object]) -> str:
    """Return what went wrong, without anything that an alert says."""
    import jinja2

    if isinstance(exc, jinja2.UndefinedError):
        # Its message may quote a value that was used as a name.
        known = "labels" in values
        advice = (
            'not every alert has every label: want for example labels.get("team", "none")'
            if known
            else "the block system knows nothing of an alert, and is the same for all"
        )
        names = [word for word in _quoted(str(exc)) if word.isidentifier() and len(word) <= 40]
        return f"{names[-1] if names else 'something'} is undefined; {advice}"
    if type(exc) is jinja2.TemplateRuntimeError:
        return str(exc)
    return f"cannot be rendered: {type(exc).__name__}"


def _quoted(text: str) -> list[str]:
    return text.split("'")[1::2]


def _environment() -> jinja2.Environment:
    from jinja2 import StrictUndefined, TemplateRuntimeError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Environment(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset({"*", "**", "%"})

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            if operator == "**" or not isinstance(left, int | float) or not isinstance(right, int | float):
                raise TemplateRuntimeError(f"no {operator} here: it could make a text of any length")
            return super().call_binop(context, operator, left, right)

    environment = Environment(
        undefined=StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters = {name: environment.filters[name] for name in _FILTERS}
    environment.globals.clear()
    environment.globals["range"] = _range
    return environment


def _range(*bounds: int) -> range:
    from jinja2 import TemplateRuntimeError

    found = range(*bounds)
    if len(found) > RANGE:
        raise TemplateRuntimeError(f"a range of more than {RANGE}")
    return found


def _restrict(tree: jinja2.nodes.Template, environment: jinja2.Environment) -> Mapping[str, int]:
    """Refuse what a prompt needs not, and count the turns of each loop. Return the lines on which its blocks begin.

    Raises TemplateSyntaxError.
    """
    from jinja2 import TemplateSyntaxError, nodes

    def refuse(node: jinja2.nodes.Node, why: str) -> None:
        raise TemplateSyntaxError(why, node.lineno)

    blocks = {node.name: node for node in tree.body if isinstance(node, nodes.Block)}
    for node in _loose(tree, nodes):
        refuse(node, "stands in neither block: want {% block system %}…{% endblock %}{% block user %}…{% endblock %}")
    if set(blocks) != {"system", "user"} or len(list(tree.find_all(nodes.Block))) != 2:
        refuse(tree, "want two blocks, {% block system %}…{% endblock %} and {% block user %}…{% endblock %}")
    if not {"alert", "labels", "annotations"} & {name.name for name in blocks["user"].find_all(nodes.Name)}:
        refuse(blocks["user"], "the block user shows nothing of the alert: want {{ alert }}")
    unwanted = (nodes.Macro, nodes.CallBlock, nodes.Import, nodes.FromImport, nodes.Include, nodes.Extends)
    for node in tree.find_all(unwanted):
        refuse(node, "macros and other files have no place in the template of a prompt")
    for call in tree.find_all(nodes.Call):
        if not (isinstance(call.node, nodes.Name) and call.node.name == "range") and not (
            isinstance(call.node, nodes.Getattr) and call.node.attr in _METHODS
        ):
            refuse(call, f"nothing can be called here but range and the methods {', '.join(sorted(_METHODS))}")
    for loop in tree.find_all(nodes.For):
        if loop.recursive or loop.test:
            refuse(loop, "a loop has neither `recursive` nor `if`: write {% if %} within it")
    for loop in list(tree.find_all(nodes.For)):
        counted = nodes.Call(nodes.Name(_ROUND, "load"), [], [], None, None)
        loop.body.insert(0, nodes.Output([counted]).set_lineno(loop.lineno).set_environment(environment))
    return {name: block.lineno for name, block in blocks.items()}


def _loose(tree: jinja2.nodes.Template, nodes: Any) -> Iterator[jinja2.nodes.Node]:
    """Yield what stands outside of the blocks and is more than white space."""
    for node in tree.body:
        if isinstance(node, nodes.Output):
            yield from (part for part in node.nodes if not isinstance(part, nodes.TemplateData) or part.data.strip())
        elif not isinstance(node, nodes.Block):
            yield node
