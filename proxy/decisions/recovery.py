"""Recovers decisions from what Alertmanager holds: its alerts show the labels that were added to them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import structlog

from proxy.alert import Alert, Identity
from proxy.classification.allowance import WaitingAllowance
from proxy.decisions.decider import BREATH, Decider
from proxy.decisions.decision import Decision, Names
from proxy.decisions.keeper import Keeper
from proxy.decisions.watch import Alertmanager, Watch
from proxy.errors import UpstreamError, UpstreamRefused

log = structlog.get_logger(__name__)

RETRY: Final = 2.0
"""Seconds between attempts."""


@dataclass(frozen=True, slots=True)
class _Variant:
    """One of the label sets in which Alertmanager holds an alert."""

    updated_at: datetime
    alert: Alert
    decision: Decision


class Recovery:
    """Runs at every start and whenever labelling begins, in every mode, until it has succeeded.

    What the store remembers comes first. Alertmanager, whose word is what people were told, is added to it and wins.

    Until then nobody knows which labels Alertmanager's alerts carry, so new alerts get only what every proxy would
    decide alike: the rules' labels.
    """

    def __init__(
        self,
        alertmanager: Alertmanager,
        decider: Decider,
        keeper: Keeper,
        names: Names,
        allowance: WaitingAllowance,
        watch: Watch,
        *,
        on_outcome: Callable[[bool], None],
        monotonic: Callable[[], float] = time.monotonic,
        retry: float = RETRY,
    ) -> None:
        self._alertmanager = alertmanager
        self._decider = decider
        self._keeper = keeper
        self._names = names
        self._allowance = allowance
        self._watch = watch
        self._on_outcome = on_outcome
        self._monotonic = monotonic
        self._retry = retry
        self._attempted = asyncio.Event()
        self._wanted = asyncio.Event()
        self._wanted.set()
        self.done = False
        """Whether what Alertmanager held is known."""
        self.found = 0
        """How many alerts it held at the last recovery."""

    async def run(self) -> None:
        """Recover, and do so again whenever `again` asks; the owner cancels it."""
        said = ""
        try:
            while True:
                await self._wanted.wait()
                failure = await self._attempt(said)
                self.done = not failure
                self._on_outcome(self.done)
                if self.done:
                    self._wanted.clear()
                self._attempted.set()
                if failure:
                    await asyncio.sleep(self._retry)
                said = failure
        finally:
            self._attempted.set()  # nobody waits for what has ended

    async def _attempt(self, said: str) -> str:
        """Return what went wrong, or nothing. Log it unless it was `said` before."""
        try:
            await self._recover()
        except UpstreamError as exc:
            failure = str(exc)
            # Away is what an Alertmanager that starts beside us is; refusing needs a person.
            tell = log.error if isinstance(exc, UpstreamRefused) else log.warning
        except Exception as exc:  # noqa: BLE001 # it must be tried again, whatever it was
            failure, tell = f"a bug: {type(exc).__name__}", log.exception
        else:
            return ""
        if failure != said:
            tell(
                "cannot read Alertmanager's alerts: until this works, new alerts get the labels of the rules, and"
                " alerts labelled before the start may page again",
                error=failure,
            )
        return failure

    async def again(self) -> None:
        """Ask Alertmanager once more, and return when it was asked; `done` tells whether it answered."""
        self.done = False
        self._attempted.clear()
        self._wanted.set()
        await self._attempted.wait()

    async def settled(self, at_most: float) -> float:
        """Wait for the attempt under way, if none has ended yet; return the seconds that were spent."""
        if self._attempted.is_set():
            return 0.0
        granted, begun = self._allowance.take(at_most), self._monotonic()
        try:
            async with asyncio.timeout(granted):
                await self._attempted.wait()
        except TimeoutError:
            pass
        spent = self._monotonic() - begun
        self._allowance.give_back(granted - spent)
        return spent

    async def _recover(self) -> None:
        # Each to its end: where Alertmanager refuses, what the store remembers must be known all the same.
        alerts, *others = await asyncio.gather(
            self._alertmanager.alerts(), self._keeper.load(), self._watch.look(), return_exceptions=True
        )
        if isinstance(alerts, BaseException):
            raise alerts
        for other in others:
            if isinstance(other, BaseException):
                raise other
        variants: dict[Identity, list[_Variant]] = {}
        for n, held in enumerate(alerts, 1):
            labels, ours, text = self._names.recognise(held.alert.labels, held.alert.annotations)
            original = replace(held.alert, labels=labels)
            variant = _Variant(held.updated_at, original, Decision(original.identity, ours, text))
            variants.setdefault(original.identity, []).append(variant)
            if n % BREATH == 0:
                await asyncio.sleep(0)
        found = [self._chosen(several) for several in variants.values()]
        await self._decider.restore([(variant.alert, variant.decision) for variant in found])
        self.found = len(found)
        log.info(
            "recovered what Alertmanager holds",
            alerts=len(found),
            labelled=sum(bool(variant.decision.labels) for variant in found),
        )

    def _chosen(self, variants: Sequence[_Variant]) -> _Variant:
        """Return the variant of one alert that goes on. Several are rare: somebody sent it with and without labels."""
        if len(variants) == 1:
            return variants[0]
        # What people were told is what we remember over the start.
        told = self._decider.before_start(variants[0].decision.identity)
        if told is not None and (same := [v for v in variants if v.decision.labels == told]):
            return same[0]
        # What we sent ourselves since the start, without knowing better, is not.
        mine = self._decider.provisional(variants[0].decision.identity)
        before = [v for v in variants if mine is None or v.decision.labels != mine.labels] or variants
        # Labels like ours without our text, beside the same alert bare: a sender's own label set.
        own = [v for v in before if not v.decision.labels or v.decision.annotations]
        return max(own or before, key=lambda v: v.updated_at)
