from datetime import UTC, datetime, timedelta

import pytest

from proxy.alert import Alert, fingerprint
from proxy.decisions import directory
from proxy.decisions.decision import Decision
from proxy.decisions.stores.memory import MemoryStore
from proxy.errors import StoreError

OURS = {"ai_severity": "critical", "ai_category": "storage"}


class Away(MemoryStore):
    shared = True

    async def forget(self, identities):
        raise StoreError("refused")


def has(client, name, **labels):
    now = datetime.now(UTC)
    alert = Alert({"alertname": name, **labels}, starts_at=now, ends_at=now + timedelta(minutes=4))
    client.living.add(client.living.candidate(Decision(alert.identity, OURS), alert), alert)
    return alert


async def listed(client, **query):
    answered = await client.get("/api/v1/decisions", params=query)
    assert answered.status == 200
    found = await answered.json()
    return [entry["labels"]["alertname"] for entry in found["decisions"]], found["total"]


async def test_decisions_are_listed_and_filtered(admin):
    client = await admin()
    for name, team in (("A", "db"), ("B", "web"), ("C", "db")):
        has(client, name, team=team)
    assert await listed(client) == (["C", "B", "A"], 3)
    assert await listed(client, limit="1") == (["C"], 3)
    assert await listed(client, filter='{team="db",alertname="A"}') == (["A"], 1)
    answered = await client.get("/api/v1/decisions", params=[("filter", 'team="db"'), ("filter", 'alertname!="A"')])
    found = await answered.json()
    assert (found["total"], found["unlisted"], len(found["decisions"])) == (1, 0, 1)
    assert found["decisions"][0]["added"] == {"labels": OURS, "annotations": {}}


async def test_one_is_shown_with_what_the_rules_say_of_it_now(admin):
    client = await admin()
    alert = has(client, "A", team="db")
    answered = await client.get(f"/api/v1/decisions/{fingerprint(alert.labels)}")
    assert (await answered.json())["rules_now"] == {"hash": "0123456789ab", "of": dict(alert.labels)}


async def test_a_hundred_are_listed_unless_told_otherwise(admin):
    client = await admin()
    for n in range(120):
        has(client, f"A{n}")
    assert [len(names) for names, _ in (await listed(client), await listed(client, limit="1000"))] == [100, 120]


@pytest.mark.parametrize(
    ("query", "advice"),
    [
        ("limit=many", "want a whole number from 0 to 1000"),
        ("limit=-1", "want a whole number from 0 to 1000"),
        ("limit=1001", "want a whole number from 0 to 1000"),
        ("limit=%C2%B2", "want a whole number from 0 to 1000"),
        ("filter=team", "bad matcher"),
        ("filter=", "no matcher"),
        ("filter={}", "no matcher"),
        ("filtr=a", "unknown parameter 'filtr'; there are filter, limit"),
    ],
)
async def test_what_cannot_be_meant_is_refused_with_advice(admin, query, advice):
    client = await admin()
    refused = await client.get(f"/api/v1/decisions?{query}")
    assert (refused.status, advice in (await refused.json())["error"]) == (400, True)


@pytest.mark.parametrize("with_ours", [False, True])
@pytest.mark.parametrize("spelled", [str.lower, str.upper])
async def test_one_decision_is_found_by_either_fingerprint(admin, with_ours, spelled):
    client = await admin()
    alert = has(client, "A")
    has(client, "B")
    wanted = fingerprint({**alert.labels, **(OURS if with_ours else {})})
    found = await client.get(f"/api/v1/decisions/{spelled(wanted)}")
    assert (found.status, (await found.json())["labels"]) == (200, {"alertname": "A"})


@pytest.mark.parametrize(("path", "status"), [("0" * 16, 404), ("0" * 15, 400), ("g" * 16, 400), ("forget", 400)])
async def test_a_fingerprint_that_nothing_has_is_not_found_and_one_that_is_none_is_refused(admin, path, status):
    client = await admin()
    has(client, "A")
    refused = await client.get(f"/api/v1/decisions/{path}")
    assert (refused.status, "fingerprint" in (await refused.json())["error"]) == (status, True)


async def test_decisions_are_forgotten_by_fingerprint_or_filter(admin):
    client = await admin()
    alerts = {name: has(client, name, team=team) for name, team in (("A", "db"), ("B", "web"), ("C", "db"))}

    async def forget(**which):
        answered = await client.post("/api/v1/decisions/forget", json=which)
        assert answered.status == 200
        return (await answered.json())["forgotten"], (await listed(client))[0]

    assert await forget(fingerprint=fingerprint({**alerts["B"].labels, **OURS})) == (1, ["C", "A"])
    assert await forget(filter=['team="db"', 'alertname="A"']) == (1, ["C"])
    assert await forget(filter='team="web"') == (0, ["C"])
    assert await forget(filter=['team="db"']) == (1, [])


@pytest.mark.parametrize(
    ("content", "status"),
    [
        ("", 400),
        ("[]", 400),
        ("{}", 400),
        ('{"filter": []}', 400),
        ('{"filter": ""}', 400),
        ('{"filter": ["{}"]}', 400),
        ('{"filter": ["alertname=\\"A\\"", ""]}', 400),
        ('{"filter": 7}', 400),
        ('{"filter": [7]}', 400),
        ('{"filter": null}', 400),
        ('{"filter": ["team"]}', 400),
        ('{"fingerprint": 7}', 400),
        ('{"fingerprint": ""}', 400),
        ('{"fingerprint": "0000000000000000", "filter": ["alertname=\\"A\\""]}', 400),
        ('{"filter": ["alertname=\\"A\\""], "dry_run": true}', 400),
        ('{"fingerprint": "0000000000000000"}', 404),
    ],
)
async def test_nothing_is_forgotten_by_mistake(admin, content, status):
    client = await admin()
    has(client, "A")
    refused = await client.post("/api/v1/decisions/forget", data=content)
    assert (refused.status, bool((await refused.json())["error"])) == (status, True)
    assert await listed(client) == (["A"], 1)


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_nothing_but_a_post_forgets(admin, method):
    client = await admin()
    assert (await client.request(method, "/api/v1/decisions/forget", json={"filter": ["a=b"]})).status == 405


async def test_a_shared_store_that_is_away_keeps_everything(admin):
    client = await admin(store=Away())
    has(client, "A")
    refused = await client.post("/api/v1/decisions/forget", json={"filter": ['alertname="A"']})
    assert (refused.status, "nothing was forgotten" in (await refused.json())["error"]) == (503, True)
    assert await listed(client) == (["A"], 1)


async def test_a_fingerprint_among_too_many_alerts_is_given_up(admin, monkeypatch):
    monkeypatch.setattr(directory, "PATIENCE", -1.0)
    client = await admin()
    has(client, "A")
    assert (await client.get(f"/api/v1/decisions/{'0' * 16}")).status == 503
    assert (await client.post("/api/v1/decisions/forget", json={"fingerprint": "0" * 16})).status == 503
