from datetime import UTC, datetime, timedelta

import pytest

from proxy.alert import Alert
from proxy.decisions.decision import Names, Treatment
from proxy.decisions.rollout import Rollout
from proxy.decisions.stores.memory import MemoryStore
from proxy.errors import StoreError
from proxy.matchers import parse_matchers
from proxy.policy import Mode

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SKIP = [parse_matchers('alertname=~"Watchdog|InfoInhibitor"'), parse_matchers("team=lab, env=test")]


def alert(starts_at=NOW, **labels):
    return Alert({"alertname": "A", **labels}, starts_at=starts_at)


async def rollout(mode, store=None, now=NOW):
    made = Rollout(mode, names=Names(), store=store or MemoryStore(), skip=SKIP, now=lambda: now)
    await made.start()
    return made


@pytest.mark.parametrize(
    ("mode", "treatment"),
    [
        (Mode.TRANSPARENT, Treatment.PLAIN),
        (Mode.ENRICHED, Treatment.LABEL),
        (Mode.TRANSPARENT_WITH_RECOMMENDATIONS, Treatment.ANNOTATE),
    ],
)
async def test_the_mode_decides_the_treatment(mode, treatment):
    assert (await rollout(mode)).treatment(alert()) is treatment


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize(
    "labels",
    [
        pytest.param({"alertname": "Watchdog"}, id="skipped by name"),
        pytest.param({"team": "lab", "env": "test"}, id="skipped by all of several matchers"),
        pytest.param({"ai_severity": "critical"}, id="brings a label of our name"),
        pytest.param({"ai_category": "x"}, id="brings the other label of our name"),
    ],
)
async def test_some_are_left_alone_in_every_mode(mode, labels):
    assert (await rollout(mode)).treatment(alert(**labels)) is Treatment.PLAIN


async def test_one_of_several_matchers_is_not_enough_to_skip():
    assert (await rollout(Mode.ENRICHED)).treatment(alert(team="lab")) is Treatment.LABEL


@pytest.mark.parametrize(
    ("mode", "treatment"),
    [(Mode.ENRICHED, Treatment.PLAIN), (Mode.TRANSPARENT_WITH_RECOMMENDATIONS, Treatment.ANNOTATE)],
)
async def test_what_fired_before_labelling_began_gets_no_labels(mode, treatment):
    before = NOW - timedelta(milliseconds=1)
    assert (await rollout(mode)).treatment(alert(before)) is treatment


async def test_an_alert_that_does_not_say_when_it_began_begins_now():
    assert (await rollout(Mode.ENRICHED)).treatment(alert(None)) is Treatment.LABEL


async def test_labelling_goes_on_over_a_restart_with_the_store():
    store = MemoryStore()
    await rollout(Mode.ENRICHED, store, NOW)
    later = await rollout(Mode.ENRICHED, store, NOW + timedelta(hours=1))
    assert later.labelling_since == NOW


async def test_a_start_in_another_mode_ends_the_labelling():
    store = MemoryStore()
    await rollout(Mode.ENRICHED, store, NOW)
    await rollout(Mode.TRANSPARENT, store, NOW)
    later = await rollout(Mode.ENRICHED, store, NOW + timedelta(hours=1))
    assert later.labelling_since == NOW + timedelta(hours=1)


async def test_a_switch_begins_the_labelling_and_asking_for_the_same_mode_does_not_begin_it_anew():
    clock = [NOW]
    made = Rollout(Mode.TRANSPARENT, names=Names(), store=MemoryStore(), now=lambda: clock[0])
    await made.start()
    assert (made.mode, made.source, made.labelling_since) == (Mode.TRANSPARENT, "config", None)
    clock[0] += timedelta(minutes=1)
    await made.switch(Mode.ENRICHED)
    assert (made.mode, made.source, made.labelling_since) == (Mode.ENRICHED, "memory", clock[0])
    begun = clock[0]
    clock[0] += timedelta(minutes=1)
    await made.switch(Mode.ENRICHED)
    assert made.labelling_since == begun
    await made.switch(Mode.TRANSPARENT)
    assert made.labelling_since is None


async def test_a_switch_that_cannot_be_kept_is_none():
    class Broken(MemoryStore):
        async def set_labelling_since(self, since):
            raise StoreError("gone")

    made = Rollout(Mode.TRANSPARENT, names=Names(), store=Broken(), now=lambda: NOW)
    with pytest.raises(StoreError):
        await made.switch(Mode.ENRICHED)
    assert (made.mode, made.source) == (Mode.TRANSPARENT, "config")
    assert made.treatment(alert()) is Treatment.PLAIN
