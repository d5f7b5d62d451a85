"""Any order of events: while an alert is sent at least every 50 minutes its labels never change, but in a new life."""

from dataclasses import replace
from datetime import timedelta

from deciding import bare, firing, held, labelled, living_by, sweep, take_up
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from simulated import Time

SEVERITIES = st.sampled_from(["critical", "warning", "info"])


class Life(RuleBasedStateMachine):
    """One alert, sent by one Prometheus, among others that take up room; and the memory of it."""

    def __init__(self):
        super().__init__()
        self.time = Time()
        self.living = living_by(self.time, capacity=2)
        self.begun = self.time.now
        self.fires_until = self.ended = self.time.now
        self.over = False
        """Whether the sender holds it resolved."""
        self.resolved_since = None
        self.had = None
        """The labels with which it was sent last in this life."""
        self.unseen = timedelta()

    @rule(severity=SEVERITIES)
    def sent(self, severity):
        """As the pipeline does it: what is known holds, what is new is decided."""
        alert = replace(self.firing(), ends_at=self.ended) if self.over else self.firing()
        before = self.had
        new_life = (
            not self.over
            and self.resolved_since is not None
            and self.begun > self.resolved_since + timedelta(minutes=15)
            and self.begun > self.fires_until
        )
        decision = self.living.seen(alert)
        if decision is None:
            proposed = bare(alert) if self.living.full or self.over else labelled(alert, severity)
            decision = take_up(self.living, proposed, alert)
        if before is not None and not new_life:
            assert decision.labels == before
        self.had = decision.labels
        self.unseen = timedelta()
        if not self.over:
            self.resolved_since = None
            self.fires_until = alert.ends_at
        else:
            self.resolved_since = self.ended

    def firing(self):
        return firing(self.time, begun=self.begun)

    @rule()
    def resolves(self):
        self.over, self.ended = True, self.time.now
        self.sent("info")

    @rule(after=st.integers(0, 40))
    def refires(self, after):
        self.passes(after)
        if self.over:
            self.over, self.begun = False, self.time.now
        self.sent("warning")

    @rule(minutes=st.integers(1, 50))
    def time_passes(self, minutes):
        self.passes(minutes)

    def passes(self, minutes):
        # Sent at least every 50 minutes: that is the promise of the sender.
        if self.unseen + timedelta(minutes=minutes) > timedelta(minutes=50):
            self.sent("critical")
        self.time.passes(minutes=minutes)
        self.unseen += timedelta(minutes=minutes)

    @rule(jump=st.integers(-60, 60))
    def the_clock_is_set_and_set_back(self, jump):
        self.time.now += timedelta(minutes=jump)
        sweep(self.living)
        self.time.now -= timedelta(minutes=jump)

    @rule()
    def expires(self):
        sweep(self.living)

    @rule(n=st.integers(0, 3), severity=SEVERITIES)
    def another_comes(self, n, severity):
        other = firing(self.time, f"Other{n}", begun=self.time.now)
        if self.living.seen(other) is None:
            take_up(self.living, bare(other) if self.living.full else labelled(other, severity), other)

    @rule(severity=SEVERITIES)
    def decided_once_more_at_the_same_time(self, severity):
        """Two POSTs of one alert: the second one was not known when it came."""
        if self.had is not None and not self.over and self.resolved_since is None:
            alert = self.firing()
            assert take_up(self.living, labelled(alert, severity), alert).labels == self.had
            self.unseen, self.fires_until = timedelta(), alert.ends_at

    @rule(severity=SEVERITIES)
    def alertmanager_shows_another_when_all_is_settled(self, severity):
        if self.had is not None and not self.over and self.resolved_since is None:
            self.living.settle()
            alert = self.firing()
            assert self.living.restore(labelled(alert, severity), alert).decision.labels == self.had
            self.unseen, self.fires_until = timedelta(), alert.ends_at

    @rule(severity=SEVERITIES)
    def the_store_is_read_again(self, severity):
        if self.had is not None and self.firing().identity in self.living.identities():
            self.living.load(held(labelled(self.firing(), severity)))

    @invariant()
    def its_counts_are_right(self):
        known = [self.living.listed(identity).decision for identity in self.living.identities()]
        assert self.living.labelled == sum(bool(decision.labels) for decision in known)


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
