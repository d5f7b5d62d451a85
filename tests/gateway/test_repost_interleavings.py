"""Late text among forwards, resolves, refires and an Alertmanager that freezes, in any order. Time is simulated.

The pipeline and the reposter are real. Two Prometheus send the same alerts, each one POST after the other. Alertmanager
is a model that merges as the real one does (provider/mem `Put`, types `Merge`), and that applies while it thaws, in any
order, what it was sent while it was frozen, also what nobody waits for any more.
"""

import asyncio
import json
import random
from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from aiohttp.test_utils import make_mocked_request
from fakes import Observer
from hypothesis import event, given, settings
from hypothesis import strategies as st
from simulated import NOW, TimeOfTheLoop, run_simulated

from proxy.decisions.decision import Decision, Treatment
from proxy.errors import UpstreamTimeout
from proxy.gateway.pipeline import Pipeline
from proxy.gateway.repost import DEADLINE, WINDOW, Reposter
from proxy.policy import Mode

NAMES = ("A", "B")
SENDERS = (0, 1)
TIMEOUT = 9.0
TEXT = "ai_summary"


class Alertmanager:
    """Knows an alert by its labels; the latest receipt brings times and annotations, merged where they overlap."""

    def __init__(self, now, rng, slowest):
        self.now, self.rng, self.slowest = now, rng, slowest
        self.held = {}
        self.frozen, self.waiting = False, []

    def freeze(self):
        self.frozen = True

    def thaw(self):
        self.frozen = False
        waiting, self.waiting = self.waiting, []
        self.rng.shuffle(waiting)
        for body, answered in waiting:
            self.apply(body, answered)

    async def post(self, body):
        """Take a POST; it arrives even if the sender gives up on it."""
        loop, answered = asyncio.get_running_loop(), asyncio.Event()
        takes = self.rng.uniform(0.001, self.slowest)
        loop.call_later(takes / 2, self.arrives, body, answered)
        await answered.wait()
        await asyncio.sleep(takes / 2)
        return 200

    def arrives(self, body, answered):
        if self.frozen:
            self.waiting.append((body, answered))
        else:
            self.apply(body, answered)

    def apply(self, body, answered):
        for alert in json.loads(body):
            key = frozenset(alert["labels"].items())
            starts, ends = (datetime.fromisoformat(alert[name]) for name in ("startsAt", "endsAt"))
            if old := self.held.get(key):
                _, old_starts, old_ends = old
                if old_starts < ends < old_ends or old_starts < starts < old_ends:
                    starts = min(starts, old_starts)
                    over, old_over = ends <= self.now(), old_ends <= self.now()
                    if (over and old_over) or not over:
                        ends = max(ends, old_ends)
            self.held[key] = alert["annotations"], starts, ends
        answered.set()

    def active(self):
        return [key for key, (*_, ends) in self.held.items() if ends > self.now()]


class Decisions:
    """What the pipeline asks of rollout, decider, living and recovery: one decision for each life of an alert."""

    def __init__(self, mode, now, landed):
        self.mode, self.now, self.landed = mode, now, landed
        self.labelled, self.done = 1, True
        self.by, self.ended, self.calls = {}, {}, {}

    async def settled(self, _):
        pass

    def former(self, _):
        return ()

    def resolve_is_news(self, alert):
        return alert.resolved(self.now()) and alert.identity not in self.ended

    def treatment(self, _):
        return Treatment.LABEL

    def known(self, alert):
        if alert.resolved(self.now()):
            self.ended[alert.identity] = alert.ends_at
        elif (ended := self.ended.get(alert.identity)) and alert.starts_at > ended:
            del self.ended[alert.identity]
            self.by.pop(alert.identity, None)
        return self.by.get(alert.identity)

    def decision(self, identity):
        return self.by.get(identity)

    def awaits_text(self, identity):
        return identity in self.calls

    async def decide(self, new, wait, *, recovered, in_time):
        for alert, treatment in new:
            labels = {"ai_severity": "warning"} if self.mode is Mode.ENRICHED else {}
            self.by[alert.identity] = Decision(alert.identity, labels, {"ai_source": "rules"})
            if treatment is not Treatment.PLAIN:
                self.calls[alert.identity] = asyncio.Event()
        calls = [asyncio.ensure_future(self.calls[a.identity].wait()) for a, _ in new if a.identity in self.calls]
        if calls and wait:
            await asyncio.wait(calls, timeout=wait)
        for call in calls:
            call.cancel()
        return {alert.identity: self.by[alert.identity] for alert, _ in new}

    def land(self, identity):
        if call := self.calls.pop(identity, None):
            self.by[identity] = replace(self.by[identity], annotations={TEXT: "The model's."})
            call.set()
            self.landed(identity)


class World(TimeOfTheLoop):
    """Everything together, and what must hold at every step."""

    def __init__(self, mode, rng, slowest):
        super().__init__()
        self.alertmanager = Alertmanager(self.now, rng, slowest)
        self.observer = Observer()
        self.outcomes = Counter()
        self.reposter = Reposter(
            decision_of=lambda identity: self.decisions.decision(identity),
            post=self.repost,
            on_outcome=lambda outcome: self.outcomes.update([outcome]),
            now=self.now,
            monotonic=self.loop.time,
        )
        self.decisions = d = Decisions(mode, self.now, self.reposter.text_landed)
        self.pipeline = Pipeline(
            rollout=d, decider=d, living=d, recovery=d, budget=2.0, observer=self.observer,
            on_resolved=self.reposter.resolved, now=self.now, monotonic=self.loop.time,
        )  # fmt: skip
        self.alerts = {(sender, name): None for sender in SENDERS for name in NAMES}
        self.turns = {sender: asyncio.Lock() for sender in SENDERS}
        self.tasks, self.wrong = [], []
        self.identities, self.labels = {}, {}
        self.resolve_came_in, self.life = {}, Counter()
        self.first, self.posted = {}, Counter()
        self.sending, self.resending = Counter(), Counter()

    # What senders do.

    def fire(self, sender, name):
        if self.alerts[sender, name] is None or self.alerts[sender, name][1]:
            self.alerts[sender, name] = self.now(), None
            self.send(sender, name)

    def resolve(self, sender, name):
        if self.alerts[sender, name] and not self.alerts[sender, name][1]:
            self.alerts[sender, name] = self.alerts[sender, name][0], self.now()
            self.send(sender, name)

    def resend(self, sender, _=None):
        self.send(sender, *NAMES)

    def send(self, sender, *names):
        batch = [
            {
                "labels": {"alertname": name},
                "annotations": {},
                "startsAt": found[0].isoformat(),
                "endsAt": (found[1] or self.now() + timedelta(minutes=4)).isoformat(),
            }
            for name in names
            if (found := self.alerts[sender, name])
        ]
        if batch:
            self.tasks.append(asyncio.create_task(self.in_turn(sender, batch)))

    async def in_turn(self, sender, batch):
        async with self.turns[sender]:
            await self.forward(batch)

    # What the listener does.

    async def forward(self, batch):
        names = [alert["labels"]["alertname"] for alert in batch]
        for alert, name in zip(batch, names, strict=True):
            if datetime.fromisoformat(alert["endsAt"]) <= self.now():
                self.resolve_came_in[name] = self.now()
                self.life[name] += 1
        deadline = self.loop.time() + TIMEOUT
        prepared = await self.pipeline.run(json.dumps(batch).encode())
        for identity, name in zip(prepared.identities, names, strict=True):
            self.identities[name] = identity
        asked = self.loop.time()
        request = make_mocked_request("POST", "/api/v2/alerts", {})
        async with self.reposter.passing(prepared, request) as answered:
            begun = self.loop.time()
            assert begun - asked <= DEADLINE + 0.001
            assert not any(self.resending[name] for name in names), "ours is still on its way"
            self.note_labels(prepared.body)
            for alert, name in zip(batch, names, strict=True):
                self.first.setdefault((name, alert["startsAt"]), begun)  # two senders give it two
            self.sending.update(names)
            try:
                async with asyncio.timeout_at(deadline):
                    answered(await self.alertmanager.post(prepared.body), self.loop.time() - begun)
            except TimeoutError:
                pass
            finally:
                self.sending.subtract(names)

    async def repost(self, target, headers, body, deadline):
        found = json.loads(body)
        names = [alert["labels"]["alertname"] for alert in found]
        try:
            self.judge(body, found, names)
        except AssertionError as exc:
            self.wrong.append(exc)  # the reposter would take it for a bug, and go on
        self.resending.update(names)
        try:
            async with asyncio.timeout_at(deadline):
                return await self.alertmanager.post(body)
        except TimeoutError:
            raise UpstreamTimeout("frozen") from None
        finally:
            self.resending.subtract(names)

    def judge(self, body, found, names):
        self.note_labels(body)
        for alert, name in zip(found, names, strict=True):
            starts_at, ends_at = (datetime.fromisoformat(alert[key]) for key in ("startsAt", "endsAt"))
            assert starts_at > self.resolve_came_in.get(name, NOW - timedelta(days=1)), "after its resolve"
            assert not self.sending[name], "together with a sender's"
            assert alert["annotations"] == {TEXT: "The model's."}
            assert self.now() < starts_at + timedelta(seconds=WINDOW)
            assert self.loop.time() < self.first[name, alert["startsAt"]] + WINDOW
            assert ends_at > self.now() + timedelta(seconds=30)
            self.posted[name, self.life[name]] += 1
            assert self.posted[name, self.life[name]] == 1, "twice in one life"

    def note_labels(self, body):
        for alert in json.loads(body):
            first = self.labels.setdefault(alert["labels"]["alertname"], alert["labels"])
            assert alert["labels"] == first, "another identity"

    def land(self, _, name):
        if name in self.identities:
            self.decisions.land(self.identities[name])

    def freeze(self, *_):
        self.alertmanager.freeze()

    def thaw(self, *_):
        self.alertmanager.thaw()

    async def settle(self):
        await asyncio.sleep(2 * TIMEOUT)
        await asyncio.gather(*self.tasks)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["fire", "land", "land", "resend", "resolve", "freeze", "thaw"]),
        st.sampled_from(SENDERS),
        st.sampled_from(NAMES),
        st.sampled_from([0.0, 0.01, 0.051, 0.06, 0.3, 1.0, 3.0]),
    ),
    min_size=4,
    max_size=20,
)
WORLDS = {
    "steps": STEPS,
    "mode": st.sampled_from([Mode.ENRICHED, Mode.TRANSPARENT_WITH_RECOMMENDATIONS]),
    "seed": st.integers(0, 1000),
    "slowest": st.sampled_from([0.01, 0.2, 0.9, 3.0]),
    "ends_frozen": st.booleans(),
}


async def play(steps, mode, seed, slowest, ends_frozen):
    world = World(mode, random.Random(seed), slowest)
    for name in NAMES:
        world.fire(0, name)
    await asyncio.sleep(2.5 if mode is Mode.ENRICHED else 0.5)  # beyond the budget, so that text is late
    for step, sender, name, gap in steps:
        getattr(world, step)(sender, name)
        await asyncio.sleep(gap)
    always_fast = slowest < 1 and not any(step == "freeze" for step, *_ in steps)
    if always_fast:
        await asyncio.sleep(5)
        for name in NAMES:
            if world.posted[name, world.life[name]]:
                [annotations] = [
                    held for key, (held, *_) in world.alertmanager.held.items() if name in dict(key).values()
                ]
                assert annotations == {TEXT: "The model's."}, "text that was there is gone"
    if ends_frozen:
        world.freeze()
    for sender in SENDERS:
        for name in NAMES:
            world.resolve(sender, name)
    await asyncio.sleep(3)
    world.thaw()
    await world.settle()
    for sender in SENDERS:
        world.resend(sender)
    await world.settle()
    assert world.alertmanager.active() == []
    await asyncio.sleep(60)
    assert world.alertmanager.active() == []
    await world.reposter.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert world.observer.unread_because == []
    if world.wrong:
        raise world.wrong[0]
    for outcome in world.outcomes:
        event(outcome)


@settings(max_examples=300, deadline=None)
@given(**WORLDS)
def test_whatever_comes_in_between_no_resolve_is_undone(**world):
    run_simulated(play(**world))


@pytest.mark.proof
@pytest.mark.timeout(1800)
@settings(max_examples=20_000, deadline=None)
@given(**WORLDS)
def test_whatever_comes_in_between_no_resolve_is_undone_long(**world):
    run_simulated(play(**world))
