"""How the author of an alert says how severe it is: one known word, or several that are all known.

    critical, CRITICAL, Sev-1, SEV 1, sev_1    a word, whatever its case, spaces, hyphens and underscores
    critical (page), P1 - Critical, 2 - High   words and their numbers; the most severe of them counts
    pre-critical, critical-ish, not critical   no word; nor is `critical (or not)`, for not all of it is known

A number alone is no word, for 1 is the gravest in one system and the mildest in another: syslog counts downwards from
0, emergency; Zabbix upwards to 5, disaster; for Nagios 1 is a warning and 2 critical.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from proxy.classification.classification import Severity
from proxy.classification.rules.table import WORD_LENGTH

_BETWEEN = re.compile(r"\s+[-\u2013:/|]\s+|[()\[\]]")
_NUMBER = re.compile(r"[0-9]*")
# Spaces, and what nobody sees. A list, because what Unicode calls a space changes with the version of Python, and
# replicas must agree.
_IGNORED = dict.fromkeys(
    [
        *map(ord, " \t\r\n\v\f-_"),
        *(0x00A0, 0x00AD, 0x034F, 0x061C, 0x180E, 0x202F, 0x205F, 0x3000, 0xFEFF),
        *range(0x2000, 0x2012),  # spaces, zero-width ones, marks of direction, hyphens
        *range(0x202A, 0x202F),
        *range(0x2060, 0x2070),
    ]
)


def normal(word: str) -> str:
    """Return an author's word as it is compared."""
    return word.casefold().translate(_IGNORED)


def said(value: str, words: Mapping[str, Severity]) -> Severity | None:
    """Return what `value` says in `words`, which are normal ones; None when it is not known."""
    if len(value) > WORD_LENGTH:
        return None
    if (severity := words.get(normal(value))) is not None:
        return severity
    parts = [part for part in map(normal, _BETWEEN.split(value)) if not _NUMBER.fullmatch(part)]
    found = [words.get(part) for part in parts]
    return next((severity for severity in Severity if severity in found), None) if None not in found else None
