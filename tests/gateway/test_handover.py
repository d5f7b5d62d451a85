"""An alert whose labels gave way to others: one POST says what it is now and that it is over as it was."""

import asyncio
import json

import pytest
from deciding import added, held, labelled, lose_claim
from fakes import FakeModel, Observer, answer, body, exchange, post, posted, settings, status_of, verdict
from piping import Held, Piped

from proxy.alert import Alert
from proxy.app import build
from proxy.classification.classification import Severity
from proxy.decisions.living import Living
from proxy.gateway import alerts
from proxy.policy import Mode

WAS, NOW_IS = added("info"), added("critical", "security")


@pytest.fixture
async def piped_with():
    made = []

    async def make(mode=Mode.ENRICHED, **options):
        gate = Held()
        gate.ready.set()
        piped = Piped(FakeModel([verdict(Severity.INFO)]), mode, held=gate, observer=Observer(), **options)
        made.append(piped)
        await piped.recovery.settled(5)
        return piped

    yield make
    for piped in made:
        await piped.close()


@pytest.fixture
async def piped(piped_with):
    return await piped_with()


def in_words(alert):
    """Its name, what was added to it, and whether it is said to be over."""
    over = alert["endsAt"] < posted(ends=100)["endsAt"]
    return alert["labels"]["alertname"], {n: v for n, v in alert["labels"].items() if n.startswith("ai_")}, over


async def handed_over(piped, *names):
    """Send alerts, and have another proxy's claim come first."""
    prepared = await piped.run(*(posted(name) for name in names))
    prepared.taken()
    for name in names:
        lose_claim(piped.living, held(labelled(Alert({"alertname": name}), "critical", "security")))


async def test_the_end_of_what_it_was_stands_right_behind_what_it_is(piped):
    await handed_over(piped, "A", "B")
    got = await piped.sent(posted("A"), posted("Other"), posted("B"))
    assert [in_words(alert) for alert in got] == [
        ("A", NOW_IS, False),
        ("A", WAS, True),
        ("Other", WAS, False),
        ("B", NOW_IS, False),
        ("B", WAS, True),
    ]


async def test_an_alert_that_is_still_to_begin_ends_when_it_begins(piped):
    await handed_over(piped, "A")
    ahead = posted("A", begun=300, ends=600)
    [_, gone] = await piped.sent(ahead)
    assert gone["endsAt"] == ahead["startsAt"]


async def test_once_alertmanager_took_it_it_is_never_sent_again(piped):
    await handed_over(piped, "A")
    prepared = await piped.run(posted("A"))
    assert len(json.loads(prepared.body)) == 2
    prepared.taken()
    assert len(await piped.sent(posted("A"))) == 1
    assert piped.living.handing_over == 0


async def test_until_then_it_goes_with_every_post(piped):
    await handed_over(piped, "A")
    for _ in range(3):
        assert len(await piped.sent(posted("A"))) == 2
    assert piped.living.handing_over == 1


async def test_a_post_without_it_hands_nothing_over(piped):
    await handed_over(piped, "A")
    (await piped.run(posted("B"))).taken()
    assert piped.living.handing_over == 1


async def test_a_resolve_ends_both(piped):
    await handed_over(piped, "A")
    got = await piped.sent(posted("A", begun=-60, ends=-1))
    assert [in_words(alert) for alert in got] == [("A", NOW_IS, True), ("A", WAS, True)]


async def test_of_an_alert_that_was_handed_over_twice_both_ends_are_sent(piped):
    await handed_over(piped, "A")
    lose_claim(piped.living, held(labelled(Alert({"alertname": "A"}), "noise")))
    got = [in_words(alert) for alert in await piped.sent(posted("A"))]
    assert got[0] == ("A", added("noise"), False)
    assert sorted(got[1:], key=str) == sorted([("A", WAS, True), ("A", NOW_IS, True)], key=str)


async def test_what_an_operator_forgot_is_decided_anew_and_ended_as_it_was(piped):
    (await piped.run(posted("A"))).taken()
    alert = Alert({"alertname": "A"})
    lose_claim(piped.living, held(labelled(alert, "critical", "security")))
    piped.living.handed_over(alert.identity, piped.living.former(alert.identity))
    piped.living.forget(alert.identity)
    got = await piped.sent(posted("A"))
    assert [in_words(alert) for alert in got] == [("A", WAS, False), ("A", NOW_IS, True)]


@pytest.mark.parametrize(
    "odd", [{"annotations": None}, {"startsAt": 1}, {"endsAt": "soon"}, {"unknown": [1.5, None]}], ids=str
)
async def test_an_unusual_alert_is_handed_over_too(piped, odd):
    await handed_over(piped, "A")
    now_it_is, gone = await piped.sent(posted("A") | odd)
    assert (now_it_is["labels"], gone["labels"]) == ({"alertname": "A", **NOW_IS}, {"alertname": "A", **WAS})
    ours = dict.fromkeys(("labels", "startsAt", "endsAt", "annotations"))
    assert now_it_is | ours == gone | ours


async def test_what_is_sent_without_our_text_ends_what_it_was_all_the_same(piped):
    await handed_over(piped, "A")
    prepared = await piped.run(posted("A"))
    without = json.loads(prepared.without_annotations())
    assert [in_words(alert) for alert in without] == [("A", NOW_IS, False), ("A", WAS, True)]
    assert all(set(alert["annotations"]) == {"summary"} for alert in without)


async def test_a_bug_costs_the_end_and_neither_the_alert_nor_its_neighbours(piped, monkeypatch):
    await handed_over(piped, "A")
    piped.observer.expects_faults = True
    monkeypatch.setattr(alerts, "ended", lambda *_: 1 / 0)
    got = await piped.sent(posted("A"), posted("B"))
    assert [in_words(alert) for alert in got] == [("A", NOW_IS, False), ("B", WAS, False)]
    assert piped.observer.faults == ["handover"]


# What passes unread


async def test_transparent_reads_on_until_nothing_is_handed_over(piped_with):
    piped = await piped_with(Mode.TRANSPARENT)
    await piped.run(posted("A"))
    assert piped.observer.unread_because == ["idle"]
    alert = Alert({"alertname": "A"})
    piped.living.load(held(labelled(alert, "info")))
    piped.living.forget(alert.identity)
    assert piped.living.labelled == 0
    prepared = await piped.run(posted("A"))
    assert [in_words(alert) for alert in json.loads(prepared.body)] == [("A", {}, False), ("A", WAS, True)]
    assert piped.observer.unread_because == ["idle"]
    prepared.taken()
    await piped.run(posted("A"))
    assert piped.observer.unread_because == ["idle"] * 2


async def test_transparent_reads_on_while_other_proxies_label(piped_with):
    label = [True]
    piped = await piped_with(Mode.TRANSPARENT, others_label=lambda: label[0])
    await piped.run(posted("A"))
    assert piped.observer.unread_because == []
    label[0] = False
    await piped.run(posted("A"))
    assert piped.observer.unread_because == ["idle"]


async def test_transparent_reads_on_while_a_labelled_alert_lives(piped_with):
    piped = await piped_with(Mode.TRANSPARENT)
    alert = Alert({"alertname": "A"})
    piped.living.load(held(labelled(alert)))
    await piped.run(posted("B"))
    assert piped.observer.unread_because == []


# Through the listener


@pytest.mark.parametrize(
    ("status", "taken"), [("200 OK", True), ("500 Internal Server Error", False), ("400 Bad Request", False)]
)
async def test_only_what_alertmanager_took_is_handed_over(alertmanager, monkeypatch, status, taken):
    lives, made = [], Living.__init__

    def kept(self, **options):
        made(self, **options)
        lives.append(self)

    monkeypatch.setattr(Living, "__init__", kept)
    given = settings(alertmanager.url, enrichment__mode="enriched")
    async with build(given, model=FakeModel([verdict(Severity.INFO)])) as running:
        await exchange(running.data_port, post(body(posted("A"))))
        [living] = lives
        lose_claim(living, held(labelled(Alert({"alertname": "A"}), "critical", "security")))
        alertmanager.respond = lambda _: answer(status)
        assert status_of(await exchange(running.data_port, post(body(posted("A"))))) == int(status[:3])
        assert len(alertmanager.posts[-1].alerts) == 2
        assert (living.handing_over == 0) is taken
        alertmanager.respond = lambda _: answer("200 OK")
        await exchange(running.data_port, post(body(posted("A"))))
    assert len(alertmanager.posts[-1].alerts) == (1 if taken else 2)
    assert living.handing_over == 0


class Waiting:
    """A POST that waits for the model, of an alert that is known and one that is new."""

    def __init__(self):
        gate = Held()
        gate.ready.set()
        self.model = FakeModel([verdict(Severity.INFO), None])
        self.piped = Piped(self.model, Mode.ENRICHED, held=gate, observer=Observer())
        self.known = Alert({"alertname": "A"})

    async def sends(self, meanwhile):
        """Return what leaves when `meanwhile` happens to the known one during the wait."""
        await self.piped.recovery.settled(5)
        (await self.piped.run(posted("A"))).taken()
        pending = asyncio.create_task(self.piped.run(posted("A"), posted("New")))
        async with asyncio.timeout(5):
            while len(self.model.asked) < 2:
                await asyncio.sleep(0)
        meanwhile(self.piped.living)
        self.model.release.set()
        prepared = await pending
        prepared.taken()
        return [in_words(alert) for alert in json.loads(prepared.body)]


@pytest.fixture
async def waiting():
    one = Waiting()
    yield one
    await one.piped.close()


async def test_an_alert_handed_over_while_another_is_waited_for_leaves_as_what_it_is_now(waiting):
    left = await waiting.sends(lambda living: lose_claim(living, held(labelled(waiting.known, "critical", "security"))))
    assert left[:2] == [("A", NOW_IS, False), ("A", WAS, True)]


async def test_an_alert_forgotten_while_another_is_waited_for_is_not_ended_in_the_same_breath(waiting):
    left = await waiting.sends(lambda living: living.forget(waiting.known.identity))
    assert [each for each in left if each[0] == "A"] == [("A", WAS, False)]
    assert waiting.piped.living.former(waiting.known.identity) == (WAS,), "it is ended with the next POST"
