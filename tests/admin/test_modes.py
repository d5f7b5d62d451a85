from datetime import timedelta

import pytest

from proxy.decisions.canary import Canary
from proxy.errors import StoreError, SwitchRefused
from proxy.policy import CanaryBy, Mode

CONFIGURED = {"percent": 50, "by": "identity", "matchers": ['team="db"']}
MODES = "transparent, enriched, transparent_with_recommendations"


async def test_the_mode_can_be_asked_and_switched(admin):
    client = await admin()
    as_configured = {"mode": "transparent", "source": "config", "switched": None, "canary": CONFIGURED}
    asked = await client.get("/enrichment/mode")
    assert list((await asked.json()).items())[:2] == [("mode", "transparent"), ("source", "config")]
    assert await asked.json() == as_configured
    switched = await client.post("/enrichment/mode", json={"mode": "enriched", "for": "2h", "by": " Anna "})
    assert switched.status == 200
    assert await switched.json() == {
        "mode": "enriched",
        "source": "memory",
        "switched": {
            "mode": "enriched",
            "at": "2026-11-22T12:00:00+00:00",
            "by": "Anna",
            "from": "127.0.0.1",
            "until": "2026-11-22T14:00:00+00:00",
            "canary": None,
        },
        "canary": CONFIGURED,
    }
    assert await (await client.get("/enrichment/mode")).json() == await switched.json()
    reset = await client.post("/enrichment/mode/reset")
    assert (reset.status, await reset.json()) == (200, as_configured)
    assert client.switch.asked == [
        (Mode.ENRICHED, "Anna", "127.0.0.1", timedelta(hours=2), None),
        (None, "", "127.0.0.1", None, None),
    ]


@pytest.mark.parametrize("force", [True, False])
async def test_whoever_insists_says_so(admin, force):
    client = await admin()
    assert (await client.post("/enrichment/mode", json={"mode": "enriched", "force": force})).status == 200
    assert client.switch.forced is force
    odd = await client.post("/enrichment/mode", json={"mode": "enriched", "force": "yes"})
    assert (odd.status, await odd.json()) == (400, {"error": "force is 'yes', want true or false"})


@pytest.mark.parametrize(
    ("given", "canary"),
    [
        ({}, Canary(50, CanaryBy.IDENTITY, ('team="db"',))),
        ({"percent": 10}, Canary(10, CanaryBy.IDENTITY, ('team="db"',))),
        ({"percent": 0.5, "by": "alertname", "matchers": []}, Canary(0.5)),
        ({"matchers": 'team="web"'}, Canary(50, CanaryBy.IDENTITY, ('team="web"',))),
        (None, None),
    ],
)
async def test_what_a_canary_leaves_out_is_as_configured(admin, given, canary):
    client = await admin()
    switched = await client.post("/enrichment/mode", json={"mode": "enriched", "canary": given})
    assert switched.status == 200
    assert client.switch.asked[0][-1] == canary


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b'"enriched"', b"null", b'{"mode":"loud"}', b'{"mode":1}', b'{"mode":null}']
)
async def test_a_mode_that_is_none_is_refused_with_advice(admin, content):
    client = await admin()
    refused = await client.post("/enrichment/mode", data=content)
    assert refused.status == 400
    assert MODES in (await refused.json())["error"]
    assert client.switch.asked == []


@pytest.mark.parametrize(
    ("given", "advice"),
    [
        ('"fro": "2h"', "unknown member 'fro'; there are mode, for, canary, by"),
        ('"for": "30"', "it needs a unit"),
        ('"for": ""', "want for example"),
        ('"for": "-1h"', "cannot be negative"),
        ('"for": 30', "want text such as"),
        ('"for": "366d"', "365d at most"),
        ('"for": "999999999999w"', "too long"),
        ('"by": 7', "your name"),
        ('"by": "' + "x" * 101 + '"', "at most 100"),
        ('"by": "a\\nlevel=error"', "printable"),
        ('"by": "\\ud800"', "printable"),
        ('"canary": 10', "canary wants an object"),
        ('"canary": {"share": 10}', "unknown member 'share' of canary"),
        ('"canary": {"percent": "10"}', "want a number from 0 to 100"),
        ('"canary": {"percent": true}', "want a number from 0 to 100"),
        ('"canary": {"percent": 101}', "want a number from 0 to 100"),
        ('"canary": {"percent": NaN}', "want a number from 0 to 100"),
        ('"canary": {"percent": 1' + "0" * 400 + "}", "want a number from 0 to 100"),
        ('"canary": {"by": "name"}', "want alertname or identity"),
        ('"canary": {"by": []}', "want alertname or identity"),
        ('"canary": {"matchers": 7}', "wants a list of matchers"),
        ('"canary": {"matchers": [""]}', "wants a list of matchers"),
        ('"canary": {"matchers": ["{}"]}', "would take in every alert"),
        ('"canary": {"matchers": ["team"]}', "bad matcher"),
        ('"canary": {"matchers": ["team=~\\"(\\""]}', "bad regular expression"),
    ],
)
async def test_what_cannot_be_meant_is_refused_with_advice(admin, given, advice):
    client = await admin()
    refused = await client.post("/enrichment/mode", data=f'{{"mode": "enriched", {given}}}')
    assert refused.status == 400
    assert advice in (await refused.json())["error"]
    assert client.switch.asked == []


@pytest.mark.parametrize("absent", ["for", "by", "canary"])
async def test_null_is_as_good_as_nothing(admin, absent):
    client = await admin()
    assert (await client.post("/enrichment/mode", json={"mode": "enriched", absent: None})).status == 200
    assert client.switch.asked == [(Mode.ENRICHED, "", "127.0.0.1", None, None)]


async def test_a_reset_may_say_who_and_nothing_else(admin):
    client = await admin()
    assert (await client.post("/enrichment/mode/reset", json={"by": "Anna"})).status == 200
    assert client.switch.asked == [(None, "Anna", "127.0.0.1", None, None)]
    for content in (b"[]", b"{", b'{"mode": "enriched"}', b'{"by": 7}'):
        assert (await client.post("/enrichment/mode/reset", data=content)).status == 400
    assert len(client.switch.asked) == 1


@pytest.mark.parametrize("path", ["/enrichment/mode", "/enrichment/mode/reset"])
@pytest.mark.parametrize(
    ("error", "status"), [(StoreError("it is away"), 503), (SwitchRefused("it is one of several"), 409)]
)
async def test_a_switch_that_is_not_done_says_why(admin, path, error, status):
    client = await admin(error=error)
    refused = await client.post(path, json={"mode": "enriched"} if path.endswith("mode") else {})
    assert (refused.status, str(error) in (await refused.json())["error"]) == (status, True)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_nothing_but_a_post_changes_the_mode(admin, method):
    client = await admin()
    answered = await client.request(method, "/enrichment/mode", json={"mode": "enriched"})
    assert answered.status == (200 if method == "GET" else 405)
    assert (await client.request(method, "/enrichment/mode/reset")).status == 405
    assert client.switch.asked == []
