"""How good a table of rules is, and what it costs: severities, categories and µs on a corpus of public alerting rules.

    PYTHONPATH=. python tests/bench/rules.py --corpus FILE [--rules FILE] [--wrong]

The corpus has one JSON object a line: `id`, `labels` without a severity, `split_group` (rules that were written
together), `truth.severity`. It is no part of this repository. `categories.json` beside this file holds the categories
of 100 of its records, drawn at random and read by hand before the table was tuned, by `id`.

Severity is measured as the rules see an alert whose author gave none: labels alone. Held out is what remains when the
severity of each rule is learnt from the other groups (10 folds by `split_group`); the patterns stay as they are, so it
says nothing of those. Groups are dealt into `tuned` and `kept` by their hash; while the table was tuned only
mistakes in `tuned` ones were looked at, so `kept` is the more honest of the two.

`--rules` measures a user's table in front of the shipped one, `--wrong` prints the mistakes in `tuned` groups.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from proxy.alert import Alert
from proxy.classification.classification import Category, Severity
from proxy.classification.rules import Rules, words
from proxy.classification.rules.reading import read
from proxy.classification.rules.table import RULES, Table
from proxy.errors import ConfigError

CATEGORIES = json.loads(Path(__file__).with_name("categories.json").read_text())
FOLDS = 10
ROUNDS = 5
POST = 256

Record = Mapping[str, Any]


def of_hash(text: str, parts: int) -> int:
    return int(hashlib.sha256(text.encode()).hexdigest(), 16) % parts


def is_tuned(record: Record) -> bool:
    return of_hash(record["split_group"], 3) > 0


def share(right: int, of: int) -> str:
    return f"{100 * right / of:5.1f} % ({right} of {of})" if of else "    –"


def severities(records: Sequence[Record], rules: Rules) -> None:
    said = [(r, rules.classify(Alert(r["labels"])).severity) for r in records]
    for name, some in (
        ("all", said),
        ("tuned", [(r, s) for r, s in said if is_tuned(r)]),
        ("kept", [(r, s) for r, s in said if not is_tuned(r)]),
    ):
        true = Counter(r["truth"]["severity"] for r, _ in some)
        right = sum(s == r["truth"]["severity"] for r, s in some)
        print(f"severity, {name:5} {share(right, len(some))}, majority {share(max(true.values()), len(some))}")
    for severity in Severity:
        those = [s for r, s in said if r["truth"]["severity"] == severity]
        print(f"  recall {severity:8} {share(sum(s == severity for s in those), len(those))}")
    print(f"  as critical {share(sum(s is Severity.CRITICAL for _, s in said), len(said))}")
    held_out(records, rules)
    shown = sum(
        rules.classify(Alert({**r["labels"], "severity": r["truth"]["raw_severity"]})).severity
        == rules.author_severity(Alert({"severity": r["truth"]["raw_severity"]}))
        for r in records
    )
    print(f"severity, shown {share(shown, len(records))}")


def held_out(records: Sequence[Record], rules: Rules) -> None:
    """What is right when the severity of a rule is what most of its alerts in other groups have."""
    decisive = [(r, rules.explain(Alert(r["labels"])).severity.by) for r in records]
    right = 0
    for fold in range(FOLDS):
        learnt: dict[str, Counter[str]] = defaultdict(Counter)
        for record, by in decisive:
            if of_hash(record["split_group"] + "k", FOLDS) != fold:
                learnt[by][record["truth"]["severity"]] += 1
        for record, by in decisive:
            if of_hash(record["split_group"] + "k", FOLDS) == fold:
                guess = learnt[by].most_common(1)[0][0] if learnt[by] else "warning"
                right += guess == record["truth"]["severity"]
    print(f"severity, held out {share(right, len(records))}")


def categories(records: Sequence[Record], rules: Rules, *, show: bool) -> None:
    found = {r["id"]: rules.classify(Alert(r["labels"])) for r in records}
    other = sum(verdict.category is Category.OTHER for verdict in found.values())
    print(f"category «other» {share(other, len(found))}")
    labelled = [r for r in records if r["id"] in CATEGORIES]
    for name, some in (
        ("all", labelled),
        ("tuned", [r for r in labelled if is_tuned(r)]),
        ("kept", [r for r in labelled if not is_tuned(r)]),
    ):
        right = sum(found[r["id"]].category == CATEGORIES[r["id"]] for r in some)
        print(f"category, {name:5} {share(right, len(some))}")
    for r in labelled if show else ():
        if is_tuned(r) and found[r["id"]].category != CATEGORIES[r["id"]]:
            verdict = found[r["id"]]
            print(f"  {r['labels']['alertname']}: {verdict.category} by {verdict.rule}, not {CATEGORIES[r['id']]}")


def wrong(records: Sequence[Record], rules: Rules) -> None:
    """Print the mistakes in severity, by what made them."""
    by: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if is_tuned(record):
            by[rules.explain(Alert(record["labels"])).severity.by].append(record)
    for name, some in sorted(by.items(), key=lambda item: -len(item[1])):
        print(f"  {name}: {dict(Counter(r['truth']['severity'] for r in some))}")


def speed(records: Sequence[Record], *tables: Table) -> float:
    """µs for an alert whose alertname is new, the median of some rounds with a cold table each."""
    alerts = list({r["labels"]["alertname"]: Alert(r["labels"]) for r in records}.values())
    took = []
    for _ in range(ROUNDS):
        rules = Rules(*tables)
        rules.classify(Alert({"alertname": "Warm"}))
        begun = time.perf_counter()
        for alert in alerts:
            rules.classify(alert)
        took.append((time.perf_counter() - begun) / len(alerts) * 1e6)
    return statistics.median(took)


def worst(*tables: Table) -> float:
    """ms for a POST of new alerts whose alertname and label are made to fit the hostile expressions."""
    dice = random.Random(1)

    def drawn(letters: str, between: str, many: int) -> str:
        return between.join(dice.choice(letters) for _ in range(many))

    took = []
    for names in (lambda: drawn("abcdefgh", " ", 40), lambda: drawn("ab", "", 80)):
        alerts = [Alert({"alertname": names(), "l": drawn("ab", "", 4000)}) for _ in range(POST)]
        rules = Rules(*tables)
        begun = time.perf_counter()
        for alert in alerts:
            rules.classify(alert)
        took.append((time.perf_counter() - begun) * 1e3)
    return max(took)


def largest(row: Callable[[int], str]) -> Table:
    """Return the table with as many such rows as are accepted."""
    fits, refused = 1, RULES + 1
    while refused - fits > 1:
        middle = (fits + refused) // 2
        try:
            large(middle, row)
            fits = middle
        except ConfigError:
            refused = middle
    return large(fits, row)


def large(rows: int, row: Callable[[int], str]) -> Table:
    return read("version: 1\nrules:\n" + "".join(f"- {{name: r{n}, {row(n)}}}\n" for n in range(rows)), "large")


def speeds(records: Sequence[Record]) -> None:
    """Print what a new alertname costs behind large tables, and behind those that are made to be slow."""
    shipped = Rules.shipped().tables
    vocabulary = sorted({word for r in records for word in words(r["labels"]["alertname"]).split()})
    dice = random.Random(1)

    def some(n: int) -> str:
        return "|".join(dice.sample(vocabulary, n))

    def pairs(_: int) -> str:
        return f"pattern: '\\b{some(1)} {some(1)}\\b', severity: info"

    def alternatives(_: int) -> str:
        return f"pattern: '\\b({some(8)})\\b.*\\b({some(8)})\\b', severity: info"

    def exact(n: int) -> str:
        return f"match: ['job=x{n}', 'pod!=y{n}'], severity: info"

    first = speed(records, *shipped)
    print(f"µs for a new alertname: shipped table {first:.0f}")
    for name, row in {
        "rules of two words": pairs,
        "rules of 16 words": alternatives,
        "rules of two matchers": exact,
    }.items():
        table = largest(row)
        took = speed(records, table, *shipped)
        print(f"  behind {len(table.rules):4} {name:23} {took:6.0f}, {took / first:.1f} times")

    def gaps(n: int) -> str:
        return (
            "pattern: '" + ".*".join(f"\\b{dice.choice('abcdefgh')}\\b" for _ in range(4)) + f".*x{n}', severity: info"
        )

    def classes(n: int) -> str:
        return f"pattern: '[ab]*a{'[ab]' * (5 + n % 16)}c{n}', severity: info"

    def counted(n: int) -> str:
        return f"pattern: '(a|b)*a(a|b){{{5 + n % 16}}}c{n}', severity: info"

    def labels(n: int) -> str:
        return f"match: ['l=~\"[ab]*a{'[ab]' * (5 + n % 16)}c{n}\"'], severity: info"

    print(f"ms for {POST} new alerts made to be slow, behind the largest table")
    behind = largest(labels)
    for name, row in {"gaps": gaps, "classes": classes, "counted repetitions": counted}.items():
        table = largest(row)
        alone, both = worst(table, *shipped), worst(table, behind, *shipped)
        print(f"  of {name:20} {alone:6.0f}, with such matchers {both:6.0f}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--rules", type=Path)
    parser.add_argument("--wrong", action="store_true")
    arguments = parser.parse_args()
    records = [json.loads(line) for line in arguments.corpus.read_text(encoding="utf-8").splitlines()]
    rules = Rules.with_own(arguments.rules) if arguments.rules else Rules.shipped()
    print(f"{len(records)} records, {len({r['split_group'] for r in records})} groups, table {rules.hash}")
    severities(records, rules)
    categories(records, rules, show=arguments.wrong)
    if arguments.wrong:
        wrong(records, rules)
    speeds(records)


if __name__ == "__main__":
    sys.exit(main())
