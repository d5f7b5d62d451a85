"""`check-config --probe`: what is made of Alertmanager's configuration, silences, alerts and peers."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
import yaml
from probing import an_alertmanager, held, probed, raw, status, told

from proxy.alert import Alert
from proxy.app.probing.added_labels import AddedLabels, Fate
from proxy.app.probing.clustering import Expected, clustered
from proxy.app.probing.doubles import variants
from proxy.app.probing.findings import SHOWN, few
from proxy.app.probing.routes import routed
from proxy.app.probing.silences import silenced
from proxy.app.probing.upstream import Answer, status_in
from proxy.decisions.decision import Names
from proxy.decisions.watch import HeldAlert
from proxy.matchers import parse_matcher
from proxy.policy import Mode

NAMES = Names(former=("old_severity",))
LABELS = {"ai_severity": "info", "ai_category": "other"}


def enriched(mode: Mode = Mode.ENRICHED, names: Names = NAMES) -> AddedLabels:
    return AddedLabels(names, mode)


def lines(findings) -> list[str]:
    return [f"{one.level}: {one.message}" for one in findings]


@pytest.mark.parametrize(
    ("matcher", "fate", "why"),
    [
        ('severity="page"', Fate.OTHERS, ""),
        ('ai_severity="critical"', Fate.DEPENDS, ""),
        ('ai_severity=~"critical|page"', Fate.DEPENDS, ""),
        ('ai_severity!="noise"', Fate.DEPENDS, ""),
        ('ai_severity=""', Fate.DEPENDS, ""),
        ('ai_severity="page"', Fate.NEVER, "one of critical, warning, info, noise"),
        ('ai_severity="critcal"', Fate.NEVER, "did you mean critical?"),
        ('ai_severity="Critical"', Fate.NEVER, "one of critical"),
        ('ai_severity=~"p1|page"', Fate.NEVER, "one of critical"),
        ('ai_severity!~".*"', Fate.NEVER, "one of critical"),
        ('ai_category="disk"', Fate.NEVER, "one of availability, capacity"),
        ('ai_category=~"stor.*"', Fate.DEPENDS, ""),
        ('ai_severity!="page"', Fate.ALWAYS, "no such value"),
        ('ai_severity=~".*"', Fate.ALWAYS, "no such value"),
        ('ai_confidence="high"', Fate.NEVER, "ai_confidence is an annotation"),
        ('ai_summary=~".+"', Fate.NEVER, "is an annotation"),
        ('ai_confidence!="high"', Fate.ALWAYS, "is an annotation"),
        ('ai_sevrity="critical"', Fate.NEVER, "did you mean ai_severity?"),
        ('ai_team="db"', Fate.UNLIKELY, "the proxy adds no label ai_team"),
        ('old_severity="critical"', Fate.UNLIKELY, "a former name"),
    ],
)
def test_what_becomes_of_a_matcher(matcher, fate, why):
    judged = enriched().judged(parse_matcher(matcher))
    assert (judged.fate, why in judged.why) == (fate, True), judged


@pytest.mark.parametrize("mode", [Mode.TRANSPARENT, Mode.TRANSPARENT_WITH_RECOMMENDATIONS])
def test_in_other_modes_labels_are_waited_for(mode):
    assert enriched(mode).judged(parse_matcher('ai_severity="critical"')).fate is Fate.NOT_IN_THIS_MODE
    assert enriched(mode).judged(parse_matcher('ai_severity="page"')).fate is Fate.NEVER
    assert enriched(mode).judged(parse_matcher('ai_severity!="critical"')).fate is Fate.DEPENDS


def test_labels_and_annotations_go_by_their_configured_names():
    added = enriched(names=Names("urgency", "kind", "bot_"))
    assert added.judged(parse_matcher('urgency="page"')).fate is Fate.NEVER
    assert added.judged(parse_matcher('kind="storage"')).fate is Fate.DEPENDS
    assert "an annotation" in added.judged(parse_matcher('bot_summary="x"')).why
    renamed = added.judged(parse_matcher('ai_severity="critical"'))
    assert (renamed.fate, "under the name urgency" in renamed.why) == (Fate.NEVER, True)
    former = enriched(names=Names("urgency", "kind", former=("ai_severity",))).judged(parse_matcher("ai_severity=info"))
    assert (former.fate, "a former name" in former.why) == (Fate.UNLIKELY, True)


ROUTES = {
    "receiver": "all",
    "group_by": ["alertname", "ai_category", "ai_summary"],
    "routes": [
        {"receiver": "fine", "matchers": ['ai_severity=~"critical|warning"', 'team="db"']},
        {"receiver": "old", "match": {"ai_severity": "page", "team": "db"}},
        {"receiver": "old-re", "match_re": {"ai_category": "disk|net"}},
        {"receiver": "text", "matchers": ["{ai_confidence=high}"]},
        {"receiver": "team", "match": {"ai_team": "a"}},
        {"receiver": "any", "matchers": ['ai_severity!="page"']},
        {"receiver": "bad", "matchers": ['ai_severity=~"("']},
        {"receiver": "others", "matchers": ['team=~"("']},
        {"receiver": "outer", "match": {"ai_severity": "info"}, "routes": [{"matchers": ['ai_severity="critical"']}]},
    ],
}
INHIBIT = [
    {
        "source_matchers": ['ai_severity="critical"'],
        "target_match": {"ai_severity": "page"},
        "equal": ["ai_severity", "ai_model"],
    },
    {"source_match_re": {"ai_severity": "critical", "severity": ".*"}, "target_matchers": ['severity="info"']},
    {"source_matchers": ["ai_category=storage", "ai_category!=storage"], "equal": ["cluster"]},
]


def configured(**parts) -> str:
    return yaml.safe_dump({"global": {"a": 1}, **parts, "receivers": [{"name": "a"}]}, sort_keys=False)


def test_every_mistake_in_routes_and_inhibition_is_told_with_its_place():
    found = lines(routed(configured(route=ROUTES, inhibit_rules=INHIBIT), enriched()))
    want = [
        ("ok: route (receiver all): group_by ai_category: ", "on the first day"),
        ("warning: route (receiver all): group_by ai_summary has no effect", "is an annotation"),
        ('error: route.routes[1] (receiver old): ai_severity="page" can never match', "never matches"),
        ('error: route.routes[2] (receiver old-re): ai_category=~"disk|net" can never match', "never matches"),
        ('error: route.routes[3] (receiver text): ai_confidence="high" can never match', "an annotation"),
        ('warning: route.routes[4] (receiver team): ai_team="a" matches none', "adds no label ai_team"),
        ('warning: route.routes[5] (receiver any): ai_severity!="page" holds for every alert', "sorts nothing out"),
        ("warning: route.routes[6] (receiver bad): cannot be read: ", "bad regular expression"),
        ("error: route.routes[8].routes[0]: with the matchers of the routes around it", "of ai_severity is left"),
        ('warning: inhibit_rules[0] source: ai_severity="critical": whether alerts are muted depends', "author"),
        ('error: inhibit_rules[0] target: ai_severity="page" can never match', "never inhibits"),
        ("error: inhibit_rules[0]: equal ai_severity: ", "take it out"),
        ("warning: inhibit_rules[0]: equal ai_model has no effect", "is an annotation"),
        ('warning: inhibit_rules[1] source: ai_severity=~"critical": whether', "depends"),
        ('warning: inhibit_rules[2] source: ai_category="storage": whether', "depends"),
        ('warning: inhibit_rules[2] source: ai_category!="storage": whether', "depends"),
        ("error: inhibit_rules[2] source: no value of ai_category is left", "never inhibits"),
    ]
    assert len(found) == len(want), found
    for line, (begins, holds) in zip(found, want, strict=True):
        assert line.startswith(begins), (line, begins)
        assert holds in line


def test_in_transparent_mode_one_warning_stands_for_all_that_waits():
    route = {"receiver": "a", "routes": [{"match": {"ai_severity": "critical"}}, {"match": {"ai_category": "other"}}]}
    (found,) = lines(routed(configured(route=route), enriched(Mode.TRANSPARENT)))
    assert found.startswith('warning: 2 matchers on our labels, ai_severity="critical" the first: in mode transparent')


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (configured(route=ROUTES["routes"][0]), "ok: 1 matcher on our labels, which can match"),
        (configured(route={"receiver": "a"}), "ok: nothing in Alertmanager's routes goes by our labels"),
        (
            "route: {receiver: a, matchers: ['{ai_severity=info, team=db}']}",
            "ok: 1 matcher on our labels, which can match",
        ),
        ("", "warning: not looked at: Alertmanager shows no routes"),
        ("receivers: []\n", "warning: not looked at: Alertmanager shows no routes"),
        ("route: [\n", "warning: not looked at: Alertmanager's configuration:"),
        ("route:\n" + "  routes: &a [*a]\n", "warning: not looked at: Alertmanager's configuration:"),
        ("route:\n  receiver: " + "x" * (5 << 20), "warning: not looked at: routes of more than"),
        ("route: " + "{routes: [" * 5000, "warning: not looked at: Alertmanager's configuration:"),
    ],
)
def test_other_configurations(text, says):
    (found,) = lines(routed(text, enriched()))
    assert found.startswith(says)


def test_receivers_are_not_looked_into_however_many_they_are():
    text = configured(route={"receiver": "a"}) + "".join(f"- name: r{n}\n" for n in range(100_000))
    assert lines(routed(text, enriched()))[0].startswith("ok: nothing")


def test_many_findings_of_a_kind_are_counted():
    route = {"receiver": "a", "routes": [{"match": {"ai_severity": f"p{n}"}} for n in range(SHOWN + 5)]}
    found = lines(few(routed(configured(route=route), enriched())))
    assert len(found) == SHOWN + 1
    assert found[-1] == "error: and 5 more like these"


async def test_a_switch_at_a_running_proxy_outranks_the_settings():
    route = configured(route={"receiver": "a", "matchers": ["ai_severity=info"]})
    said = {"version": "1", "mode": "enriched", "alertmanager": {}}
    async with (
        raw(an_alertmanager(lambda: status(config={"original": route}))) as am,
        raw(lambda _: b"HTTP/1.1 200 OK\r\n\r\n" + json.dumps(said).encode()) as admin,
    ):
        alone = await probed(am.url)
        switched = await probed(am.url, admin=admin.url)
    assert alone.one("routes").startswith("warning: 1 matcher on our labels")
    assert switched.one("routes") == "ok: 1 matcher on our labels, which can match"


# Silences.


def silence(*matchers: dict, state: str = "active", id: str = "1-2") -> dict:  # noqa: A002 # Alertmanager's word
    return {"id": id, "status": {"state": state}, "matchers": [{"isRegex": False, **one} for one in matchers]}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([{"name": "team", "value": "db"}], "ok: none of 1 active silences goes by our labels"),
        ([{"name": "ai_severity", "value": "page"}], "can never match: ai_severity is one of"),
        ([{"name": "ai_severity", "value": "noise"}], "depends on what a model said"),
        ([{"name": "ai_severity", "value": "noise|info", "isRegex": True}], 'ai_severity=~"noise|info": what it mutes'),
        ([{"name": "ai_severity", "value": "page", "isEqual": False}], "holds for every alert"),
        ([{"name": "ai_summary", "value": "x", "isEqual": True}], "is an annotation"),
        ([{"name": "ai_severity", "value": "(", "isRegex": True}], "one of its matchers cannot be read"),
    ],
)
def test_silences_by_our_labels(given, says):
    found = lines(silenced(json.dumps([silence(*given)]).encode(), enriched()))
    assert len(found) == 1
    assert says in found[0]
    assert found[0].startswith("ok: " if given[0]["name"] == "team" else "warning: silence 1-2: ")


def test_matchers_of_a_silence_hold_together():
    both = silence({"name": "ai_severity", "value": "info"}, {"name": "ai_severity", "value": "noise"})
    assert "leave no value of ai_severity" in lines(silenced(json.dumps([both]).encode(), enriched()))[-1]


def test_silences_that_are_over_or_unreadable():
    over = silence({"name": "ai_severity", "value": "info"}, state="expired")
    assert lines(silenced(json.dumps([over]).encode(), enriched()))[0].startswith("ok: none of 0 active")
    for body in (b"{}", b"x", b'[{"id": 1}]', b"null"):
        assert lines(silenced(body, enriched())) == ["warning: not known: the answer is no list of silences"]


# Alerts that are there twice.


def alerts(*given) -> list[HeldAlert]:
    now = datetime.now(UTC)
    return [
        HeldAlert(Alert({"alertname": name, **labels}), now - timedelta(seconds=ago)) for name, labels, ago in given
    ]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        pytest.param([("A", {}, 0), ("B", LABELS, 0)], "ok: of 2 alerts none is held twice", id="different alerts"),
        pytest.param(
            [("A", {}, 0), ("A", LABELS, 0)], "error: 1 alert (A) is held with our labels and without", id="2"
        ),
        pytest.param([("A", {}, 700), ("A", LABELS, 0)], "ok: ", id="the bare one is on its way out"),
        pytest.param([("A", {}, 0), ("A", LABELS, 700)], "ok: ", id="the labelled one is on its way out"),
        pytest.param([("A", {}, 500), ("A", LABELS, 0)], "error: 1 alert (A)", id="both within ten minutes"),
        pytest.param([("A", {"ai_severity": "page"}, 0), ("A", {}, 0)], "ok: ", id="a sender's own label"),
        pytest.param(
            [("A", {**LABELS, "ai_severity": "noise"}, 0), ("A", LABELS, 0)],
            "error: 1 alert (A) is held with two sets of our labels",
            id="two sets of labels",
        ),
        pytest.param(
            [(name, labels, 0) for name in "DCBA" for labels in ({}, LABELS)], "error: 4 alerts (A, B) are", id="many"
        ),
    ],
)
def test_alerts_that_are_held_twice(given, says):
    (found,) = lines(variants(alerts(*given), NAMES, datetime.now(UTC)))
    assert found.startswith(says)


async def test_double_sending_is_found_by_alertmanagers_own_clock():
    three_hours = 3 * 3600
    listed = [held("A", three_hours - 60), held("A", three_hours - 60, **LABELS), held("B", three_hours - 700)]
    listed.append(held("B", three_hours, **LABELS))
    date = (datetime.now(UTC) + timedelta(seconds=three_hours)).strftime("%a, %d %b %Y %H:%M:%S GMT")

    def respond(path: str) -> bytes:
        said = an_alertmanager(alerts=listed)(path)
        return said.replace(b"HTTP/1.1 200 OK\r\n", f"HTTP/1.1 200 OK\r\nDate: {date}\r\n".encode())

    async with raw(respond) as am:
        found = await probed(am.url)
    assert found.one("double sending").startswith("error: 1 alert (A) is held")


async def test_alerts_and_silences_that_cannot_be_read_are_not_known():
    good = an_alertmanager()
    async with raw(lambda path: good(path) if "status" in path else told([], "500 Oops")) as am:
        found = await probed(am.url)
    assert found.one("double sending").startswith("warning: not known: ")
    assert found.one("silences").startswith("warning: not known: ")


# Peers.


def said(peers: int, state: str = ""):
    given = status(peers=peers)
    given["cluster"]["status"] = state or given["cluster"]["status"]
    return status_in(Answer(200, {}, json.dumps(given).encode()))


ALONE, AUTO, SHARED = Expected(1, False, 1), Expected(0, False, 1), Expected(0, True, 1)


@pytest.mark.parametrize(
    ("status", "expected", "says"),
    [
        pytest.param(said(0), AUTO, ["ok: disabled, no cluster"], id="no cluster"),
        pytest.param(said(1), AUTO, ["ok: ready, 1 peer, itself among them"], id="alone"),
        pytest.param(said(1), ALONE, ["ok: ready, 1 peer"], id="alone, as is said"),
        pytest.param(said(3), SHARED, ["ok: ready, 3 peers, itself among them, and their"], id="three that share"),
        pytest.param(said(3), AUTO, ["warning: there are 3 proxies, and store.url is not shared"], id="unshared"),
        pytest.param(said(3), Expected(3, True, 1), ["ok: ready, 3 peers"], id="as many as are said"),
        pytest.param(said(2), ALONE, ["error: Alertmanager has 2 peers"], id="fewer proxies than peers"),
        pytest.param(
            said(1),
            Expected(2, True, 1),
            ["warning: alertmanager.replicas is 2, and Alertmanager knows 1"],
            id="more",
        ),
        pytest.param(
            said(0),
            Expected(2, True, 1),
            ["warning: alertmanager.replicas is 2, and Alertmanager knows no"],
            id="2",
        ),
        pytest.param(said(2, "settling"), SHARED, ["warning: the cluster is settling, with 2 peers"], id="settling"),
        pytest.param(said(0, "settling"), SHARED, ["warning: the cluster is settling, with 1 peer"], id="alone yet"),
        pytest.param(said(2, "odd"), SHARED, ["warning: the cluster says that it is 'odd'"], id="another state"),
        pytest.param(said(3), Expected(0, False, 2), ["error: this proxy sends to 2 Alert"], id="mixed"),
        pytest.param(said(2), Expected(0, False, 2), ["ok: ready, 2 peers"], id="one proxy for both"),
        pytest.param(said(2), Expected(1, False, 2), ["ok: ready, 2 peers"], id="one proxy for both, as is said"),
    ],
)
def test_peers_against_what_the_settings_expect(status, expected, says):
    found = lines(clustered(status, expected))
    assert len(found) == len(says)
    assert all(line.startswith(begins) for line, begins in zip(found, says, strict=True)), found


async def test_the_settings_say_what_is_expected():
    async with raw(an_alertmanager(lambda: status(peers=2))) as am:
        unshared = await probed(am.url)
        too_few = await probed(am.url, alertmanager__replicas=1)
        shared = await probed(am.url, store__url="redis://127.0.0.1:1")
    assert unshared.one("cluster").startswith("warning: there are 2 proxies")
    assert too_few.of("cluster")[0].startswith("error: Alertmanager has 2 peers")
    assert shared.one("cluster").startswith("ok: ")
