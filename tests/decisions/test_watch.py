"""What only Alertmanager tells: whether there are several, and whether an alert has two identities."""

import asyncio

import pytest
from deciding import added, running, until
from simulated import NOW, Time
from structlog.testing import capture_logs

from proxy.alert import Alert
from proxy.decisions.decision import Names
from proxy.decisions.watch import SETTLED, SHARE, Cluster, HeldAlert, Watch
from proxy.errors import UpstreamError


class Alertmanager:
    """Sees `peers`, for `up` seconds; holds `held`, and takes `seconds` of the test's clock to say so."""

    def __init__(self, time):
        self.time = time
        self.peers, self.up = 0, 3600.0
        self.held, self.seconds = [], 0.0
        self.away = False
        self.read_at = []
        self.looked = 0

    async def cluster(self):
        self.looked += 1
        if self.away:
            raise UpstreamError("away")
        return Cluster(self.peers, self.up)

    async def alerts(self):
        self.read_at.append(self.time.monotonic)
        self.time.passes(seconds=self.seconds)
        if self.away:
            raise UpstreamError("away")
        return self.held


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def alertmanager(time):
    return Alertmanager(time)


@pytest.fixture
def watch_of(alertmanager, time):
    def make(replicas=None, **options):
        return Watch(alertmanager, Names(), replicas=replicas, monotonic=lambda: time.monotonic, **options)

    return make


async def seen(watch):
    await watch.look()
    return watch.several, watch.expected


def test_before_alertmanager_has_answered_several_are_assumed_and_one_is_expected(watch_of):
    watch = watch_of()
    assert (watch.several, watch.expected, watch.peers) == (True, 1, None)


async def test_an_alertmanager_that_does_not_cluster_is_alone_at_once(watch_of, alertmanager):
    alertmanager.up = 0.0
    watch = watch_of()
    assert await seen(watch) == (False, 1)
    assert watch.peers == 0


@pytest.mark.parametrize(("up", "several"), [(SETTLED - 1, True), (SETTLED, False)])
async def test_one_that_sees_nobody_is_alone_once_it_had_the_time_to_find_them(watch_of, alertmanager, up, several):
    alertmanager.peers, alertmanager.up = 1, up
    assert await seen(watch_of()) == (several, 1)


async def test_that_time_may_pass_by_our_clock(watch_of, alertmanager, time):
    """Its own may be wrong."""
    alertmanager.peers, alertmanager.up = 1, 0.0
    watch = watch_of()
    assert await seen(watch) == (True, 1)
    time.passes(seconds=SETTLED - 1)
    assert await seen(watch) == (True, 1)
    time.passes(seconds=1)
    assert await seen(watch) == (False, 1)


@pytest.mark.parametrize("later", [0, 1])
async def test_who_had_peers_once_has_them_for_ever(watch_of, alertmanager, time, later):
    """One that is restarted, or cut off, sends to people all the same."""
    alertmanager.peers = 3
    watch = watch_of()
    assert await seen(watch) == (True, 3)
    alertmanager.peers = later
    time.passes(days=1)
    assert await seen(watch) == (True, 3)
    time.passes(minutes=9)
    assert await seen(watch) == (True, 3), "it may live on with its proxy, cut off from here"
    time.passes(minutes=2)
    assert await seen(watch) == (True, 1), "it is waited for no more"
    assert watch.peers == 3


async def test_peers_that_come_later_count(watch_of, alertmanager):
    watch = watch_of()
    assert await seen(watch) == (False, 1)
    alertmanager.peers = 2
    assert await seen(watch) == (True, 2)


@pytest.mark.parametrize(("replicas", "several"), [(1, False), (2, True)])
async def test_a_number_in_the_settings_is_the_number(watch_of, alertmanager, replicas, several):
    watch = watch_of(replicas)
    assert (watch.several, watch.expected) == (several, replicas)
    for alertmanager.peers in (0, 3):
        assert await seen(watch) == (several, replicas)


async def test_no_answer_changes_nothing(watch_of, alertmanager):
    watch = watch_of()
    alertmanager.away = True
    assert await seen(watch) == (True, 1)
    alertmanager.away = False
    assert await seen(watch) == (False, 1)
    alertmanager.away = True
    assert await seen(watch) == (False, 1)


async def reads(alertmanager):
    """Return when Alertmanager was read once more."""
    times = len(alertmanager.read_at)
    while len(alertmanager.read_at) == times:
        alertmanager.time.passes(minutes=1)
        await asyncio.sleep(0.001)


def holds(*variants, **labels):
    return [HeldAlert(Alert({"alertname": "A", **labels, **variant}), NOW) for variant in variants]


@pytest.mark.parametrize(
    ("held", "conflicts"),
    [
        pytest.param([], 0, id="nothing"),
        pytest.param([*holds({}, pod="a"), *holds({}, pod="b")], 0, id="alerts as they come"),
        pytest.param([*holds(added("info"), pod="a"), *holds(added("info"), pod="b")], 0, id="labelled as they should"),
        pytest.param(holds({}, added("info")), 1, id="one with labels and without"),
        pytest.param(holds(added("critical"), added("info")), 1, id="one with two sets of labels"),
        pytest.param(holds(added("critical"), added("info"), {}), 1, id="one with all of them is one"),
        pytest.param([*holds({}, added("info"), pod="a"), *holds({}, added("info"), pod="b")], 2, id="two"),
        pytest.param(holds({}, {"ai_severity": "critical"}), 0, id="a sender's own label"),
    ],
)
async def test_alerts_with_two_identities_are_counted(watch_of, alertmanager, held, conflicts):
    alertmanager.held = held
    watch = watch_of(every=0.001)
    async with running(watch.run()):
        await reads(alertmanager)
        await until(lambda: watch.conflicts == conflicts)
        if conflicts:
            alertmanager.held = []
            await reads(alertmanager)
            await until(lambda: not watch.conflicts)


async def test_reading_takes_at_most_one_hundredth_of_the_time(watch_of, alertmanager, time):
    alertmanager.seconds = 5.0
    watch = watch_of(every=0.001)
    async with running(watch.run()):
        while len(alertmanager.read_at) < 4:
            time.passes(seconds=10)
            await asyncio.sleep(0.002)
    gaps = [later - earlier for earlier, later in zip(alertmanager.read_at, alertmanager.read_at[1:], strict=False)]
    assert min(gaps) >= SHARE * alertmanager.seconds
    assert max(gaps) < SHARE * alertmanager.seconds + 60


async def test_until_it_is_time_the_alerts_are_not_read(watch_of, alertmanager):
    watch = watch_of(every=0.01)
    async with running(watch.run()):
        await until(lambda: alertmanager.looked > 5)
    assert alertmanager.read_at == [], "on a clock that stands still it is never time"


async def test_an_alertmanager_that_has_not_answered_yet_is_asked_again_soon(watch_of, alertmanager, monkeypatch):
    monkeypatch.setattr("proxy.decisions.watch.SOON", 0.001)
    alertmanager.away = True
    watch = watch_of(every=3600)
    async with running(watch.run()):
        await until(lambda: alertmanager.looked > 3)
        alertmanager.away = False
        await until(lambda: not watch.several)


async def test_alerts_that_cannot_be_read_are_no_bug(watch_of, alertmanager):
    alertmanager.away = True
    watch = watch_of(every=0.001)
    with capture_logs() as logs:
        async with running(watch.run()):
            await reads(alertmanager)
            alertmanager.cluster = lambda: asyncio.sleep(0, Cluster(0, 0.0))
            await reads(alertmanager)
    assert {entry["log_level"] for entry in logs} == {"debug"}


@pytest.mark.parametrize("trouble", [UpstreamError("away"), ZeroDivisionError()], ids=repr)
async def test_trouble_ends_no_watching(watch_of, alertmanager, monkeypatch, trouble):
    async def fails():
        alertmanager.looked += 1
        raise trouble

    watch = watch_of(every=0.001)
    good = alertmanager.cluster
    monkeypatch.setattr(alertmanager, "cluster", fails)
    async with running(watch.run()):
        await until(lambda: alertmanager.looked > 3)
        assert watch.several
        monkeypatch.setattr(alertmanager, "cluster", good)
        await until(lambda: not watch.several)


@pytest.mark.parametrize(
    ("peers", "sends_to", "several", "expected"),
    [
        pytest.param(2, 2, False, 1, id="all are this proxy's own"),
        pytest.param(2, 3, False, 1, id="one of them has left"),
        pytest.param(3, 2, True, 2, id="one of them has a proxy of its own"),
        pytest.param(2, 1, True, 2, id="one for each"),
    ],
)
async def test_alertmanagers_that_this_proxy_sends_to_need_no_other(
    watch_of, alertmanager, time, peers, sends_to, several, expected
):
    alertmanager.peers = peers
    watch = watch_of(sends_to=lambda: sends_to)
    await watch.look()
    time.passes(seconds=SETTLED)
    assert await seen(watch) == (several, expected)
    assert watch.suggested == expected
    if several:
        beside = f" and this proxy sends to {sends_to} of them" if sends_to > 1 else ""
        assert watch.why_several == f"Alertmanager has {peers} peers{beside}, so there are several proxies"


async def test_one_of_several_that_is_killed_and_comes_back_is_no_other(watch_of, alertmanager, time):
    """It has a new name in its cluster, and for a while the old one stands beside it."""
    alertmanager.peers = 2
    watch = watch_of(sends_to=lambda: 2)
    assert await seen(watch) == (False, 1)
    for passing in (0, SETTLED - 1):
        alertmanager.peers = 3
        time.passes(seconds=passing)
        assert await seen(watch) == (False, 1)
    alertmanager.peers = 2
    assert await seen(watch) == (False, 1)
    alertmanager.peers = 3
    time.passes(seconds=SETTLED)
    assert await seen(watch) == (False, 1), "not for as long as before"
    time.passes(seconds=SETTLED)
    assert await seen(watch) == (True, 2), "it stays"


async def test_at_the_start_more_than_this_proxy_sends_to_are_not_taken_for_its_own(watch_of, alertmanager):
    alertmanager.peers = 3
    assert await seen(watch_of(sends_to=lambda: 2)) == (True, 1)


async def test_alertmanagers_that_are_found_later_are_counted_then(watch_of, alertmanager):
    """The addresses of some that begin come into DNS one by one."""
    alertmanager.peers, sends_to = 2, [1]
    watch = watch_of(sends_to=lambda: sends_to[0])
    assert await seen(watch) == (True, 2)
    sends_to[0] = 2
    assert await seen(watch) == (False, 1)
