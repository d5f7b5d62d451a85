"""Classes of alerts: those that a model is asked about once."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from typing import NewType

from proxy.alert import Alert
from proxy.policy import PER_OBJECT

ClassKey = NewType("ClassKey", bytes)
"""What makes alerts of one class: they share a verdict, and one call of the model."""


def class_key(alert: Alert, salt: str, per_object: Collection[str] = PER_OBJECT) -> ClassKey:
    """Return the class of `alert`: its labels without those that name one object, and never its annotations.

    `salt` stands for everything else that a verdict depends on: the model and the version of the prompt.
    """
    digest = hashlib.blake2b(salt.encode(), digest_size=16)
    for name in sorted(alert.labels):
        if name not in per_object:
            digest.update(b"\xff" + name.encode() + b"\xff" + alert.labels[name].encode())
    return ClassKey(digest.digest())


def by_class(alerts: Sequence[Alert], per_object: Collection[str] = PER_OBJECT) -> list[list[int]]:
    """Return the places of `alerts`, those of one class together, in the order in which the classes come first."""
    found: dict[ClassKey, list[int]] = {}
    for n, alert in enumerate(alerts):
        found.setdefault(class_key(alert, "", per_object), []).append(n)
    return list(found.values())
