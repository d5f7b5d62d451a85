"""A recovery against an Alertmanager that answers, in turn, what the test says."""

import asyncio
from datetime import UTC, datetime

from deciding import Rooms
from simulated import NOW

from proxy.alert import Alert
from proxy.classification.allowance import WaitingAllowance
from proxy.decisions.decision import Names
from proxy.decisions.recovery import Recovery
from proxy.decisions.watch import Cluster, HeldAlert, Watch

OURS = {"ai_severity": "noise", "ai_category": "security"}
ALERT = Alert({"alertname": "A"}, starts_at=NOW)
HELD = HeldAlert(Alert({"alertname": "A", **OURS}, starts_at=ALERT.starts_at), datetime.now(UTC))


class Alertmanager:
    """Gives the scripted answers in turn, the last one for ever; an Event is waited for, and then there are none."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = 0
        self.busy = asyncio.Event()
        """Set while a question waits for an Event."""

    async def alerts(self):
        self.asked += 1
        await asyncio.sleep(0)  # so that one who never stops asking lets the test say so
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, asyncio.Event):
            self.busy.set()
            await answer.wait()
            return []
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def cluster(self):
        return Cluster(0, 0.0)


class Made:
    """A recovery and what it needs."""

    def __init__(self, alertmanager, *, store=None, capacity=6.0, monotonic=None, retry=0.0):
        self.alertmanager = alertmanager
        self.rooms = Rooms(store)
        self.living = self.rooms.living
        self.outcomes = []
        self.allowance = WaitingAllowance(capacity, monotonic=lambda: 0.0)  # nothing refills
        self.watch = Watch(alertmanager, Names(), replicas=None)
        given = {} if monotonic is None else {"monotonic": monotonic}
        self.recovery = Recovery(
            alertmanager,
            self.rooms.decider,
            self.rooms.keeper,
            Names(),
            self.allowance,
            self.watch,
            on_outcome=self.outcomes.append,
            retry=retry,
            **given,
        )
