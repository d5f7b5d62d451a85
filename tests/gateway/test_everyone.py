"""Several Alertmanagers, asked on the proxy's own account."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from proxy.alert import Alert
from proxy.decisions.watch import Cluster, HeldAlert
from proxy.errors import UpstreamError, UpstreamRefused
from proxy.gateway.everyone import Everyone

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def held(name, minute=0, **labels):
    return HeldAlert(Alert({"alertname": name, **labels}), NOW + timedelta(minutes=minute))


class Client:
    def __init__(self, alerts=(), cluster=None):
        self._alerts, self._cluster = alerts, cluster

    async def alerts(self):
        if isinstance(self._alerts, Exception):
            raise self._alerts
        return list(self._alerts)

    async def cluster(self):
        if isinstance(self._cluster, Exception):
            raise self._cluster
        return self._cluster


@dataclass
class One:
    name: str
    client: Client


def everyone(*clients):
    return Everyone(lambda: [One(f"http://{n}", client) for n, client in enumerate(clients)])


async def test_what_any_of_them_holds_is_held_and_the_latest_word_counts():
    older, newer = held("B", 1, ai_severity="info"), held("B", 2, ai_severity="info")
    found = await everyone(Client([]), Client([held("A"), older]), Client([newer, held("C")])).alerts()
    assert sorted(found, key=lambda one: one.alert.name) == [held("A"), newer, held("C")]
    assert await everyone(Client([newer]), Client([older])).alerts() == [newer]


async def test_one_alert_with_two_identities_stays_two():
    assert len(await everyone(Client([held("A")]), Client([held("A", ai_severity="info")])).alerts()) == 2


async def test_one_answer_is_enough_and_who_fails_is_named_once():
    asked = everyone(Client(UpstreamError("away")), Client([held("A")]))
    with capture_logs() as logs:
        for _ in range(2):
            assert await asked.alerts() == [held("A")]
    assert [(line["log_level"], line["errors"]) for line in logs] == [("warning", "away")]


@pytest.mark.parametrize(
    ("failures", "kind"),
    [
        ([UpstreamError("away"), UpstreamRefused("401")], UpstreamRefused),
        ([UpstreamError("away"), UpstreamError("away")], UpstreamError),
        ([], UpstreamError),
    ],
    ids=["a refusal needs a person", "all away", "none known"],
)
async def test_no_answer_is_an_error(failures, kind):
    with pytest.raises(UpstreamError) as raised:
        await everyone(*map(Client, failures)).alerts()
    assert type(raised.value) is kind


async def test_a_bug_is_not_taken_for_an_alertmanager_that_is_away():
    with pytest.raises(ZeroDivisionError):
        await everyone(Client([]), Client(ZeroDivisionError())).alerts()


async def test_the_one_that_sees_the_most_peers_is_right():
    asked = everyone(
        Client(cluster=Cluster(1, 3)), Client(cluster=UpstreamError("away")), Client(cluster=Cluster(3, 60))
    )
    assert await asked.cluster() == Cluster(3, 60)
