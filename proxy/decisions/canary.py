"""Which alerts take part while labelling is rolled out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from proxy.alert import Alert
from proxy.matchers import Matcher, matches_all, parse_matchers
from proxy.policy import CanaryBy

_STEPS = 10_000


@dataclass(frozen=True, slots=True)
class Canary:
    """A share of the alerts: of those that `matchers` select, `percent`. The same on every proxy, and at every start.

    What was decided about an alert stays; the canary is asked about new ones only.
    """

    percent: float = 100.0
    by: CanaryBy = CanaryBy.ALERTNAME
    matchers: tuple[str, ...] = ()
    """Each a list of matchers as Alertmanager writes it; an alert is selected when all of one entry hold. Empty: all
    are. Raises ValueError for what is no list of matchers."""
    _parsed: Sequence[Sequence[Matcher]] = field(init=False, repr=False, compare=False, default=())

    def __post_init__(self) -> None:
        if not 0 <= self.percent <= 100:
            raise ValueError(f"{self.percent:g} is no share: want percent from 0 to 100")
        object.__setattr__(self, "_parsed", [parse_matchers(text) for text in self.matchers])

    def takes(self, alert: Alert) -> bool:
        """Return whether `alert` takes part."""
        if self._parsed and not any(matches_all(matchers, alert.labels) for matchers in self._parsed):
            return False
        if self.percent >= 100:
            return True
        # A larger share takes in the smaller one: who takes part at 10 % does so at 20 %, too.
        of = alert.name.encode() if self.by is CanaryBy.ALERTNAME else alert.identity
        place = int.from_bytes(hashlib.blake2b(of, digest_size=8, person=b"canary").digest(), "big") % _STEPS
        return place < self.percent / 100 * _STEPS
