"""What every DecisionStore keeps; each adapter runs all of it."""

from datetime import UTC, datetime

import pytest

from proxy.alert import identity
from proxy.decisions.decision import Decision
from proxy.decisions.store import DecisionStore
from proxy.decisions.stores.memory import MemoryStore

A, B = (identity({"alertname": name}) for name in "AB")


def decision(of=A, severity="critical"):
    return Decision(of, {"ai_severity": severity}, {"ai_source": "rules"})


@pytest.fixture(params=["memory"])
def store(request) -> DecisionStore:
    return {"memory": MemoryStore}[request.param]()


async def test_an_empty_store_knows_nothing(store):
    assert dict(await store.get([A, B])) == {}
    assert await store.labelling_since() is None


async def test_the_first_claim_wins(store):
    assert dict(await store.claim([decision(A, "critical")])) == {A: decision(A, "critical")}
    held = await store.claim([decision(A, "info"), decision(B, "info")])
    assert dict(held) == {A: decision(A, "critical"), B: decision(B, "info")}
    assert dict(await store.get([A, B])) == dict(held)


async def test_bare_is_claimed_too(store):
    await store.claim([Decision(A)])
    assert dict(await store.claim([decision(A)])) == {A: Decision(A)}


async def test_what_is_forgotten_can_be_claimed_anew(store):
    await store.claim([decision(A, "critical"), decision(B)])
    await store.forget([A])
    assert dict(await store.claim([decision(A, "info")])) == {A: decision(A, "info")}
    assert dict(await store.get([B])) == {B: decision(B)}


async def test_nothing_to_do_is_no_error(store):
    await store.forget([A])
    assert dict(await store.claim([])) == {}
    assert dict(await store.get([])) == {}


async def test_since_when_is_labelled_is_kept(store):
    since = datetime(2026, 11, 22, 12, tzinfo=UTC)
    await store.set_labelling_since(since)
    assert await store.labelling_since() == since
    await store.set_labelling_since(None)
    assert await store.labelling_since() is None
