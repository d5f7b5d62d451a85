"""A reposter whose clocks, decisions and Alertmanager are in the test's hands."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import timedelta

from aiohttp.test_utils import make_mocked_request
from simulated import NOW, TimeOfTheLoop

from proxy.decisions.decision import Decision
from proxy.errors import UpstreamError, UpstreamTimeout
from proxy.gateway import alerts
from proxy.gateway.pipeline import Prepared
from proxy.gateway.repost import Reposter, Sent

LABELS = {"ai_severity": "warning", "ai_category": "other"}
HEADERS = {
    "Authorization": "Bearer sender",
    "Content-Type": "application/json",
    "Content-Length": "7",
    "Expect": "100-continue",
    "Connection": "close",
}


class World(TimeOfTheLoop):
    """A reposter, and an Alertmanager that answers after `takes` seconds with `status`; None breaks the connection."""

    def __init__(self, **options):
        super().__init__()
        self.decisions = {}
        self.outcomes, self.posts = [], []
        self.status, self.takes = 200, 0.1
        self.reposter = Reposter(
            decision_of=self.decisions.get,
            post=self.post,
            on_outcome=self.outcomes.append,
            now=self.now,
            monotonic=self.loop.time,
            **options,
        )

    def sent(self, name="A", *, begun=0.0, ends=240.0, **more):
        """A firing alert, and the rules' decision about it; `begun` and `ends` in seconds from the beginning."""
        times = {"startsAt": begun, "endsAt": ends}
        wire = {"labels": {"alertname": name}, "annotations": {"summary": "s"}, **more} | {
            key: (NOW + timedelta(seconds=at)).isoformat() for key, at in times.items() if at is not None
        }
        element = json.dumps(wire)
        [item] = alerts.decode(f"[{element}]".encode()).items
        alert = item.read()
        self.decisions.setdefault(alert.identity, Decision(alert.identity, LABELS, {"ai_source": "rules"}))
        return Sent(alert, element)

    async def forward(
        self, *sent, carried=(), takes=0.1, status=200, lingers=0.0, path="/api/v2/alerts", headers=HEADERS
    ):
        """A sender's POST; `carried` are alerts in it whose text it has. Returns when it began."""
        identities = {one.alert.identity: None for one in (*sent, *carried)}.keys()
        prepared = Prepared(b"", identities=identities, awaiting=sent)
        async with self.reposter.passing(prepared, make_mocked_request("POST", path, headers)) as answered:
            begun = self.at()
            await asyncio.sleep(takes)
            if status is not None:
                answered(status, takes)
            await asyncio.sleep(lingers)
        return begun

    async def resolve(self, *sent, takes=0.1):
        """A POST of resolves that was prepared. Returns when it was forwarded."""
        identities = [one.alert.identity for one in sent]
        prepared = Prepared(b"", identities=identities, resolved=identities)
        request = make_mocked_request("POST", "/api/v2/alerts", HEADERS)
        async with self.reposter.passing(prepared, request) as answered:
            begun = self.at()
            await asyncio.sleep(takes)
            answered(200, takes)
        return begun

    def land(self, *sent):
        for one in sent:
            identity = one.alert.identity
            self.decisions[identity] = replace(self.decisions[identity], annotations={"ai_summary": "The model's."})
            self.reposter.text_landed(identity)

    async def post(self, target, headers, body, deadline):
        self.posts.append((round(self.at(), 3), target, dict(headers), json.loads(body)))
        try:
            async with asyncio.timeout_at(deadline):
                await asyncio.sleep(self.takes)
        except TimeoutError:
            raise UpstreamTimeout("no answer") from None
        if self.status is None:
            raise UpstreamError("broken")
        return self.status

    @property
    def posted(self):
        """For each POST of ours, the names in it."""
        return [[alert["labels"]["alertname"] for alert in posted] for *_, posted in self.posts]
