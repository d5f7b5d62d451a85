"""What a comparison of models has shown, as text for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from proxy.cli.texts import plain, table

Object = Mapping[str, Any]
NAME_LENGTH = 120
"""Characters of what an alert is called in a table; the JSON has all."""


def text(found: Object, width: int) -> str:
    """Return the tables, in lines of at most `width` characters where a table can be laid out so."""
    names = _short([one["name"] for one in found["models"]])
    lines: list[str] = []
    if found["classes"]:
        lines += [*_classes(found["classes"], names, width), "", *_models(found["models"], names, width), ""]
        lines += _pairs(found["models"], names)
        lines += _failures(found["models"], names)
    return "\n".join([*lines, *_end(found)])


def why(model: Object) -> str:
    """Return how the calls of a model failed, the most frequent way first."""
    return "; ".join(
        (f"{one['reason']}: {one['error']}" if one["error"] else one["reason"])
        + (f" ({one['calls']} calls)" if one["calls"] > 1 else "")
        for one in model["failed"]
    )


def _classes(classes: Sequence[Object], names: Mapping[str, str], width: int) -> list[str]:
    rows = [
        (
            alert,
            one["author_severity"] or "-",
            *(_verdict(one["verdicts"][name]) for name in names),
            {True: "yes", False: "NO", None: "-"}[one["agree"]],
        )
        for alert, one in zip(_alerts(classes), classes, strict=True)
    ]
    return _fitted([("ALERT", "AUTHOR", *names.values(), "AGREE"), *rows], width)


def _verdict(said: Object) -> str:
    failed = f"{said['failed']} failed" if said["failed"] else ""
    if not said["of"]:
        return failed or "not asked"
    times = f"{said['times']} of {said['of']}"
    return f"{said['severity']}/{said['category']} {said['confidence']}, {times}" + (f", {failed}" if failed else "")


def _alerts(classes: Sequence[Object]) -> Iterator[str]:
    """Yield a name for each class: the alertname, and of the labels those that tell it from its namesakes."""
    for one in classes:
        namesakes = [other["labels"] for other in classes if other["alertname"] == one["alertname"]]
        telling = [
            f'{name}="{value}"'
            for name, value in sorted(one["labels"].items())
            if any(labels.get(name) != value for labels in namesakes)
        ]
        labels = f"{{{', '.join(telling)}}}" if telling else ""
        count = f" ({one['alerts']} alerts)" if one["alerts"] > 1 else ""
        name = f"{one['alertname'] or 'without a name'}{labels}"
        yield (name if len(name) <= NAME_LENGTH else f"{name[: NAME_LENGTH - 1]}…") + count


def _models(models: Sequence[Object], names: Mapping[str, str], width: int) -> list[str]:
    header = (
        "MODEL", "ASKED", "FAILED", "SELF", "AUTHOR", "RULES", "P50", "MAX", "TOKENS IN", "OUT", "USD", "USD PER 1000",
    )  # fmt: skip
    return _fitted([header, *(_model(one, names) for one in models)], width)


def _model(one: Object, names: Mapping[str, str]) -> Sequence[str]:
    seconds, tokens, agreement = one["latency_seconds"], one["tokens"], one["agreement"]
    return (
        names[one["name"]],
        f"{one['asked']:,}",
        f"{one['asked'] - one['verdicts']:,}",
        _percent(one["self_agreement"]),
        _of(agreement["author"]["severity"], agreement["author"]["classes"]),
        _of(agreement["rules"]["both"], agreement["rules"]["classes"]),
        *("-" if each is None else f"{each:.2f}s" for each in (seconds["p50"], seconds["max"])),
        *("unknown" if each is None else f"{each:,}" for each in (tokens["input"], tokens["output"])),
        "unknown" if one["cost_usd"] is None else f"{one['cost_usd']:.4f}",
        "unknown" if one["cost_per_1000_usd"] is None else f"{one['cost_per_1000_usd']:.2f}",
    )


def _pairs(models: Sequence[Object], names: Mapping[str, str]) -> Iterator[str]:
    for n, one in enumerate(models):
        for other in models[n + 1 :]:
            both = one["agreement"]["models"][other["name"]]
            if not both["classes"]:
                continue
            shares = ", ".join(f"{what} {_percent(both[what])}" for what in ("severity", "category", "both"))
            of = _count(both["classes"], "class", "classes")
            yield plain(f"{names[one['name']]} and {names[other['name']]} agree: {shares} of {of}")


def _failures(models: Sequence[Object], names: Mapping[str, str]) -> Iterator[str]:
    for one in models:
        if one["failed"]:
            yield plain(f"{names[one['name']]} failed: {why(one)}")


def _end(found: Object) -> Iterator[str]:
    if found["left_out"]:
        yield f"left out: {_count(found['left_out'], 'alert', 'alerts')} that no model is asked about"
    if not found["classes"]:
        yield "no alerts"
        return
    calls = found["calls"]
    asked = f"{calls['ended']:,} of {calls['planned']:,} calls"
    alerts, classes = (_count(n, one, many) for n, one, many in (
        (found["alerts"], "alert", "alerts"), (len(found["classes"]), "class", "classes"),
    ))  # fmt: skip
    times = _count(found["repeat"], "time", "times")
    yield f"{'INTERRUPTED after ' if found['interrupted'] else ''}{asked}: {alerts}, {classes}, {times}"


def _short(names: Sequence[str]) -> Mapping[str, str]:
    """Return the models' names without their addresses, where these do not tell one from the other."""
    bare = {name: name.partition("@http")[0] for name in names}
    twice = Counter(bare.values())
    return {name: short if twice[short] == 1 else name for name, short in bare.items()}


def _fitted(rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Return a table; where it is too wide, one block for each row."""
    lines = table(rows)
    if max(map(len, lines)) <= width:
        return lines
    head, *rest = rows
    blocks = [[plain(row[0]), *(f"  {line}" for line in table([*zip(head[1:], row[1:], strict=True)]))] for row in rest]
    return [line for n, block in enumerate(blocks) for line in (["", *block] if n else block)]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def _of(share: float | None, classes: int) -> str:
    return "-" if share is None else f"{share:.0%} of {classes}"


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"
