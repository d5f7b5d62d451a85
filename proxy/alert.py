"""An alert and its identity, in Alertmanager's words. Values only: no wire format, no I/O."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NewType

LabelSet = Mapping[str, str]
"""Label (or annotation) names to values."""

Fingerprint = NewType("Fingerprint", str)
"""Alertmanager's name for a label set: 16 hex digits. For people; see `fingerprint`."""

Identity = NewType("Identity", bytes)
"""Our key for a label set: 16 bytes. 64 bits of FNV are too few to key decisions on, and slow in Python."""

_FNV_OFFSET = 0xCBF29CE484222325
_FNV_PRIME = 0x100000001B3
_U64 = 0xFFFFFFFFFFFFFFFF


def fingerprint(labels: LabelSet) -> Fingerprint:
    """Return the fingerprint Alertmanager shows for `labels`.

    FNV-1a 64 over `name 0xFF value 0xFF` in byte order of the names, empty values left out
    (prometheus/common, model.LabelSet.Fingerprint). About 70 µs in Python: for display only.
    """
    digest = _FNV_OFFSET
    for name, value in sorted((n.encode(), v.encode()) for n, v in labels.items() if v):
        for byte in name + b"\xff" + value + b"\xff":
            digest = ((digest ^ byte) * _FNV_PRIME) & _U64
    return Fingerprint(f"{digest:016x}")


def identity(labels: LabelSet) -> Identity:
    """Return the key under which what is decided about `labels` is kept; order and empty values do not matter."""
    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted((n.encode(), v.encode()) for n, v in labels.items() if v):
        # 0xFF never occurs in UTF-8, so no two label sets give the same bytes.
        digest.update(name + b"\xff" + value + b"\xff")
    return Identity(digest.digest())


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert as its sender described it."""

    labels: LabelSet
    """Without empty values: to Alertmanager an empty label is no label."""
    annotations: LabelSet = field(default_factory=dict)
    starts_at: datetime | None = None
    """None: not said, Alertmanager takes the moment of receipt."""
    ends_at: datetime | None = None
    """None: not said (also year 1, Go's zero time, which amtool sends)."""
    identity: Identity = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "identity", identity(self.labels))

    @property
    def name(self) -> str:
        """The alertname; empty when there is none, which Alertmanager allows."""
        return self.labels.get("alertname", "")

    def resolved(self, now: datetime) -> bool:
        """Whether Alertmanager, receiving the alert at `now` (aware), takes it as resolved."""
        return self.ends_at is not None and self.ends_at <= now
