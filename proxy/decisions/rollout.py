"""Who gets what: the mode, the canary, and the alerts that are left alone in every mode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from proxy.alert import Alert
from proxy.decisions.canary import Canary
from proxy.decisions.decision import Names, Treatment
from proxy.matchers import Matcher, matches_all
from proxy.policy import Mode


class Rollout:
    """Decides the treatment of alerts that nothing is known about. What is decided already never asks here again."""

    def __init__(
        self,
        mode: Mode,
        *,
        names: Names,
        canary: Canary | None = None,
        skip: Sequence[Sequence[Matcher]] = (),
        bare_before: Callable[[], datetime | None] = lambda: None,
    ) -> None:
        """`bare_before` tells of a time before which alerts went bare and were not remembered."""
        self._mode = mode
        self._names = names
        self._canary = canary or Canary()
        self._skip = skip
        self._bare_before = bare_before
        self._labelling_since: datetime | None = None

    @property
    def mode(self) -> Mode:
        return self._mode

    @property
    def canary(self) -> Canary:
        return self._canary

    @property
    def labelling_since(self) -> datetime | None:
        """Alerts that began before were sent bare, and stay bare. None while the mode does not label."""
        return self._labelling_since

    def apply(self, mode: Mode, canary: Canary, labelling_since: datetime | None) -> None:
        """Change what alerts not seen yet get."""
        self._mode = mode
        self._canary = canary
        self._labelling_since = labelling_since if mode is Mode.ENRICHED else None

    def skip(self, skip: Sequence[Sequence[Matcher]]) -> None:
        """Leave other alerts alone from now on: those for which all matchers of one entry hold."""
        self._skip = skip

    def treatment(self, alert: Alert) -> Treatment:
        """Return what `alert`, firing and never seen before, gets."""
        if self._mode is Mode.TRANSPARENT:
            return Treatment.PLAIN
        if any(name in alert.labels for name in self._names.labels):
            # Labels that the sender chose are the sender's: nothing is overwritten, nothing is trusted as ours.
            return Treatment.PLAIN
        if any(matches_all(matchers, alert.labels) for matchers in self._skip):
            return Treatment.PLAIN
        if not self._canary.takes(alert):
            return Treatment.PLAIN
        if self._mode is Mode.TRANSPARENT_WITH_RECOMMENDATIONS:
            return Treatment.ANNOTATE
        for since in (self._labelling_since, self._bare_before()):
            # Alertmanager may know it without labels: with labels it would be a second alert, and page again.
            if since is not None and alert.starts_at and alert.starts_at < since:
                return Treatment.PLAIN
        return Treatment.LABEL if self._labelling_since is not None else Treatment.PLAIN
