"""Several Alertmanagers behind one proxy: each gets every alert in order, and none holds up another."""

import asyncio
import time

import pytest
from fakes import OK, FakeModel, answer, body, exchange, post, posted, settings, status_of
from several import Gate, Several, several, until

from proxy.app import build, upstream
from proxy.gateway import fanout

FOR_EVER = 60.0


def fine(_):
    return OK


def silent(_):
    return None


def says(status, content=b""):
    return lambda _: answer(status, content)


def names(alertmanager):
    return [received.alerts[0]["labels"]["alertname"] for received in alertmanager.posts]


@pytest.fixture
def impatient(monkeypatch):
    """Who waits for the others does so for a moment only."""
    monkeypatch.setitem(fanout.Fanout.__init__.__kwdefaults__, "lag", 0.05)


@pytest.fixture
def patient(monkeypatch):
    """Who waits for the others waits for ever."""
    monkeypatch.setitem(fanout.Fanout.__init__.__kwdefaults__, "lag", FOR_EVER)


async def test_each_gets_the_same_bytes_and_the_sender_one_answer(patient):
    async with several(fine, fine, fine) as proxy:
        sent = body(posted("A"), posted("B"))
        raw = await exchange(proxy.running.data_port, post(sent))
        assert (status_of(raw), raw.count(b"HTTP/1.1")) == (200, 1)
        assert [[one.body for one in each.posts] for each in proxy.alertmanagers] == [[sent]] * 3
        assert await proxy.counted("sent_total") == [1, 1, 1]
        assert await proxy.counted("errors_total") == [0, 0, 0]
        assert await proxy.counted("latency_seconds_count") == [1, 1, 1]
        assert await proxy.states() == ["answers"] * 3


async def test_one_that_is_silent_holds_the_sender_up_for_a_moment_only():
    timing = {"alertmanager__timeout": "2500ms", "enrichment__budget": "10ms"}
    async with several(silent, fine, **timing) as proxy:
        begun = time.monotonic()
        assert await proxy.post() == 200
        assert fanout.LAG - 0.05 <= time.monotonic() - begun < 2, "of 2.5 s"
        assert names(proxy.alertmanagers[1]) == ["A"]


async def test_what_is_on_its_way_goes_on_when_the_sender_has_its_answer(impatient):
    gate = Gate()
    async with several(fine, gate) as proxy:
        assert await proxy.post() == 200
        assert await proxy.counted("sent_total") == [1, 0]
        gate.open.set()
        await proxy.until("sent_total", [1, 1])
        assert await proxy.counted("errors_total") == [0, 0]


async def test_a_resolve_never_overtakes_what_it_ends(impatient):
    gate = Gate()
    async with several(fine, gate) as proxy:
        for n in range(5):
            assert await proxy.post(f"A{n}") == 200
        quick, slow = proxy.alertmanagers
        assert names(quick) == [f"A{n}" for n in range(5)]
        assert names(slow) == ["A0"], "one at a time"
        gate.open.set()
        await until(lambda: len(slow.posts) == 5)
        assert names(slow) == names(quick)
        assert slow.connections == quick.connections


async def test_what_waits_past_its_deadline_is_dropped_and_counted(impatient):
    timing = {"alertmanager__timeout": "700ms", "enrichment__budget": "10ms"}
    async with several(fine, silent, **timing) as proxy:
        for n in range(4):
            assert await proxy.post(f"A{n}") == 200
        await proxy.until("errors_total", [0, 2])
        await proxy.until("dropped_total", [0, 2])
        assert names(proxy.alertmanagers[0]) == [f"A{n}" for n in range(4)]


async def test_two_timeouts_suspend_it_and_an_answer_ends_that(impatient):
    gate = Gate()
    timing = {"alertmanager__timeout": "1s", "enrichment__budget": "10ms"}
    async with several(gate, fine, **timing) as proxy:
        for n in range(2):
            assert await proxy.post(f"timeout {n}") == 200
            assert await proxy.states() == [["unknown", "fails"][n], "answers"]
            await proxy.until("errors_total", [n + 1, 0])
        assert await proxy.states() == ["suspended", "answers"]
        assert await proxy.counted("suspended") == [1, 0]

        get = b"GET /api/v2/silences HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        assert status_of(await exchange(proxy.running.data_port, get)) == 200
        assert proxy.alertmanagers[1].received[-1].line == "GET /api/v2/silences HTTP/1.1", "not to one that is silent"

        for n in range(3):  # one is tried, nobody waits for it, and the others are not sent meanwhile
            assert await proxy.post(f"probe {n}") == 200
        assert names(proxy.alertmanagers[0]) == ["timeout 0", "timeout 1", "probe 0"]
        assert await proxy.counted("dropped_total") == [2, 0]

        gate.open.set()
        async with asyncio.timeout(10):
            while await proxy.counted("suspended") != [0, 0]:
                assert await proxy.post("again") == 200
        assert await proxy.post("as ever") == 200
        await until(lambda: names(proxy.alertmanagers[0])[-1] == "as ever")
        assert await proxy.states() == ["answers", "answers"]


@pytest.mark.parametrize(
    ("responds", "status", "content"),
    [
        pytest.param((says("500 Oops", b"first"), says("400 Bad", b"second")), 500, b"first", id="two refuse"),
        pytest.param((fine, says("400 Bad", b"second")), 400, b"second", id="one took it and one refuses"),
        pytest.param((lambda _: b"", says("503 Busy", b"mine")), 503, b"mine", id="an answer of its own comes first"),
        pytest.param((fine, lambda _: b""), 502, b"alertmanager-ai-proxy: ", id="one hangs up"),
        pytest.param((fine, silent), 504, b"alertmanager-ai-proxy: ", id="one is silent"),
    ],
)
async def test_what_the_sender_hears_when_not_enough_take_it(patient, responds, status, content):
    timing = {"alertmanager__timeout": "700ms", "enrichment__budget": "10ms"}
    async with several(*responds, **timing, alertmanager__min_success="2") as proxy:
        raw = await proxy.send(posted())
        assert status_of(raw) == status
        assert raw.partition(b"\r\n\r\n")[2].startswith(content)


@pytest.mark.parametrize(("needed", "status"), [("1", 200), ("2", 400), ("3", 400)])
async def test_a_success_needs_as_many_as_are_configured(patient, needed, status):
    async with several(says("400 Bad"), fine, says("500 Oops"), alertmanager__min_success=needed) as proxy:
        assert await proxy.post() == status
        assert await proxy.counted("errors_total") == [1, 0, 1]


async def test_no_success_before_enough_have_really_taken_it(impatient):
    gate = Gate()
    async with several(fine, gate, alertmanager__min_success="2") as proxy:
        sending = asyncio.create_task(proxy.post())
        await until(lambda: proxy.alertmanagers[1].posts)
        assert not (await asyncio.wait({sending}, timeout=0.3))[0]
        gate.open.set()
        assert await sending == 200


async def test_only_the_one_that_refuses_our_text_gets_the_alert_without_it(patient):
    def refuses(received):
        return answer("422 No") if b"ai_summary" in received.body else OK

    async with several(refuses, fine, model=FakeModel(), enrichment__mode="enriched") as proxy:
        assert await proxy.post() == 200
        assert [[b"ai_summary" in one.body for one in each.posts] for each in proxy.alertmanagers] == [
            [True, False],
            [True],
        ]
        assert await proxy.counted("errors_total") == [0, 0]


SILENCE = b"POST /api/v2/silences HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"


async def test_everything_else_goes_to_the_first_and_to_the_next_when_its_connection_is_refused():
    async with several(fine, fine) as proxy:
        assert status_of(await exchange(proxy.running.data_port, SILENCE)) == 200
        assert [len(one.received) for one in proxy.alertmanagers] == [1, 0]
        await proxy.alertmanagers[0].stop()
        assert status_of(await exchange(proxy.running.data_port, SILENCE)) in (200, 502)  # on a connection that died
        assert status_of(await exchange(proxy.running.data_port, SILENCE)) == 200
        assert proxy.alertmanagers[1].received[-1].body == b"{}"
        await proxy.alertmanagers[1].stop()


async def test_a_silence_that_one_may_have_made_is_not_made_by_another():
    async with several(lambda _: b"", fine) as proxy:
        assert status_of(await exchange(proxy.running.data_port, SILENCE)) == 502
        assert [len(one.received) for one in proxy.alertmanagers] == [1, 0]


async def test_a_post_too_long_to_be_read_is_refused():
    async with several(fine, fine, web__max_body_size="64KiB") as proxy:
        assert await proxy.post("x" * 70_000) == 413
        assert [one.received for one in proxy.alertmanagers] == [[], []]


async def test_what_is_on_its_way_has_its_time_when_the_proxy_stops(impatient):
    gate = Gate()
    async with several(fine, gate) as proxy:
        assert await proxy.post() == 200
        asyncio.get_running_loop().call_later(0.3, gate.open.set)
    assert gate.answered == 1


async def test_one_that_is_away_costs_the_others_nothing(impatient, unused_tcp_port):
    async with several(fine) as one:
        given = settings("", alertmanager__url=[f"http://127.0.0.1:{unused_tcp_port}", one.alertmanagers[0].url])
        async with build(given) as running:
            proxy = Several(running, one.alertmanagers)
            assert await proxy.post() == 200
            assert await proxy.states() == ["fails", "answers"]


@pytest.mark.parametrize(("waiting", "dropped"), [(0, 2), (upstream.WAITING, 0)], ids=["one long POST", "64 MiB"])
async def test_so_much_waits_for_a_slow_one_and_no_more(waiting, dropped, impatient, monkeypatch):
    monkeypatch.setattr(upstream, "WAITING", waiting)
    gate = Gate()
    async with several(fine, gate, web__max_body_size="64KiB") as proxy:
        for n in range(4):
            assert await proxy.post(f"{n}" * 20_000) == 200
        gate.open.set()
        await until(lambda: len(proxy.alertmanagers[1].posts) == 4 - dropped)
        assert await proxy.counted("dropped_total") == [0, dropped]


@pytest.mark.parametrize(("peers", "several_proxies"), [(2, False), (3, True)])
async def test_their_peers_are_no_other_proxies(peers, several_proxies):
    async with several(fine, fine, peers=peers, enrichment__mode="enriched") as proxy:
        async with asyncio.timeout(10):
            while (status := await proxy.get("/api/v1/status"))["alertmanager"]["peers"] is None:
                await asyncio.sleep(0.02)
        assert bool(status["labels_by_rules"]) is several_proxies
        assert await proxy.states() == ["unknown", "unknown"]
