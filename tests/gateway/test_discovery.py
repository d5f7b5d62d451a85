"""Alertmanagers that are found in DNS: who is found, and what is done when nobody is."""

import asyncio
import socket

import pytest
from fakes import OK, body, exchange, fake_alertmanager, post, posted, settings, status_of
from several import Several, until
from yarl import URL

from proxy.app import build, composition
from proxy.gateway import discovery
from proxy.gateway.discovery import Discovery


class Dns:
    """Answers with the addresses of each name, or raises what stands there."""

    def __init__(self, **names):
        self.names = names
        self.asked = []

    async def __call__(self, host):
        self.asked.append(host)
        found = self.names[host]
        if isinstance(found, Exception):
            raise found
        return found


class Found:
    def __init__(self, *urls, **options):
        self.dns = Dns(am=["10.0.0.2", "10.0.0.1"])
        self.gone = []
        self.discovery = Discovery(urls, str, self.gone.append, resolve=self.dns, **options)

    async def look(self):
        await self.discovery.look()
        return list(self.discovery.current)


async def test_each_address_of_a_name_is_one_and_a_plain_name_is_not_looked_up():
    found = Found("http://am:9093", "dns+https://am:9094/prefix", "http://10.0.0.9")
    assert await found.look() == [
        "http://am:9093",
        "https://10.0.0.1:9094/prefix",
        "https://10.0.0.2:9094/prefix",
        "http://10.0.0.9",
    ]
    assert found.dns.asked == ["am"]


async def test_the_order_of_the_answer_does_not_matter_and_an_address_counts_once():
    found = Found("dns+http://am:1", "http://10.0.0.1:1")
    first = await found.look()
    found.dns.names["am"] = ["10.0.0.1", "10.0.0.2", "10.0.0.1"]
    assert await found.look() == first == ["http://10.0.0.1:1", "http://10.0.0.2:1"]
    assert found.gone == []


async def test_an_ipv6_address_has_its_brackets():
    found = Found("dns+http://am:9093/x")
    found.dns.names["am"] = ["fd00::1", "10.0.0.1"]
    assert await found.look() == ["http://10.0.0.1:9093/x", "http://[fd00::1]:9093/x"]


@pytest.mark.parametrize(
    "failure", [socket.gaierror(-2, "Name or service not known"), OSError("away"), UnicodeError("label too long"), []]
)
async def test_a_lookup_that_fails_keeps_what_was_found_last(failure):
    found = Found("dns+http://am:9093")
    before = await found.look()
    found.dns.names["am"] = failure
    assert await found.look() == before
    found.dns.names["am"] = ["10.0.0.2", "10.0.0.3"]
    assert await found.look() == ["http://10.0.0.2:9093", "http://10.0.0.3:9093"]
    assert found.gone == ["http://10.0.0.1:9093"]
    assert found.discovery.most == 2


async def test_a_lookup_without_an_end_is_given_up():
    found = Found("dns+http://am:9093", "http://other", lookup=0.02)

    async def hangs(_):
        await asyncio.Event().wait()

    found.discovery._resolve = hangs
    assert await found.look() == ["http://other"]


async def test_who_stays_is_the_same_one():
    dns = Dns(am=["10.0.0.1"])
    kept = Discovery(["dns+http://am:1"], lambda url: [url], lambda _: None, resolve=dns)
    await kept.look()
    [one] = kept.current
    dns.names["am"] = ["10.0.0.1", "10.0.0.2"]
    await kept.look()
    assert kept.current[0] is one


async def test_it_looks_again_and_a_bug_does_not_end_that():
    found = Found("dns+http://am:9093", every=0.01, soon=0.01)
    found.dns.names["am"] = ZeroDivisionError()
    task = asyncio.create_task(found.discovery.run())
    await until(lambda: len(found.dns.asked) > 1)
    found.dns.names["am"] = ["10.0.0.1"]
    await until(lambda: list(found.discovery.current) == ["http://10.0.0.1:9093"])
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_the_system_knows_the_names_of_its_hosts_file():
    assert "127.0.0.1" in await discovery.addresses("localhost")
    with pytest.raises(socket.gaierror):
        await discovery.addresses("no-such-host.invalid")


@pytest.fixture
async def moving(monkeypatch):
    """A proxy whose Alertmanagers are at 127.0.0.1, 127.0.0.2 …, as its name says in DNS."""
    dns = Dns(am=OSError("away"))
    opened = composition.open_upstream

    async def open_here(*given):
        return await opened(*given, resolve=dns)

    monkeypatch.setattr(composition, "open_upstream", open_here)
    monkeypatch.setattr(Discovery.__init__, "__kwdefaults__", Discovery.__init__.__kwdefaults__ | {"every": 0.05})
    monkeypatch.setitem(Discovery.__init__.__kwdefaults__, "soon", 0.05)
    return dns


async def test_nobody_at_the_start_means_502_and_whoever_is_found_later_gets_alerts(moving):
    async with fake_alertmanager(respond=lambda _: OK) as one:
        url = f"dns+http://am:{one.port}"
        async with build(settings(url)) as running:
            proxy = Several(running, [one])
            raw = await proxy.send(posted())
            assert status_of(raw) == 502
            assert b"no Alertmanager is known" in raw
            assert (await proxy.get("/api/v1/status"))["alertmanager"]["url"] == url
            assert await proxy.counted("sent_total") == [None]

            moving.names["am"] = ["127.0.0.1"]
            await proxy.until("sent_total", [0])
            assert status_of(await exchange(running.data_port, post(body(posted())))) == 200
            await proxy.until("sent_total", [1])
            assert "aiproxy_alertmanagers_discovered 1.0" in await proxy.get("/metrics")

            moving.names["am"] = ["127.0.0.2"]
            await proxy.until("sent_total", [None])
            text = await proxy.get("/metrics")
            assert str(URL(f"http://127.0.0.2:{one.port}")) in text
            assert f"127.0.0.1:{one.port}" not in text


async def test_too_few_are_known_for_a_success(moving):
    moving.names["am"] = ["127.0.0.1"]
    async with fake_alertmanager() as one:
        async with build(settings(f"dns+http://am:{one.port}", alertmanager__min_success="2")) as running:
            raw = await Several(running, [one]).send(posted())
        assert (status_of(raw), one.posts) == (502, [])
        assert b"1 of the 2 Alertmanagers are known that must take a POST" in raw


async def test_a_name_of_the_hosts_file_is_watched():
    async with fake_alertmanager() as one, build(settings(f"dns+http://localhost:{one.port}")) as running:
        assert status_of(await Several(running, [one]).send(posted())) == 200
        assert len(one.posts) == 1


async def test_what_is_on_its_way_to_one_that_goes_ends_by_itself_and_is_not_counted(moving):
    release = asyncio.Event()

    async def slowly(_):
        await release.wait()
        return OK

    moving.names["am"] = ["127.0.0.1"]
    async with fake_alertmanager(respond=slowly) as one, build(settings(f"dns+http://am:{one.port}")) as running:
        proxy = Several(running, [one])
        sending = asyncio.create_task(proxy.post())
        await until(lambda: one.posts)
        moving.names["am"] = ["127.0.0.2"]
        await proxy.until("sent_total", [None])
        release.set()
        assert await sending == 200
        assert await proxy.counted("sent_total") == [None]


async def test_as_long_as_nobody_is_known_it_looks_again_soon():
    found = Found("dns+http://am:9093", every=3600, soon=0.01)
    found.dns.names["am"] = OSError("away")
    await found.look()
    task = asyncio.create_task(found.discovery.run())
    await until(lambda: len(found.dns.asked) > 2)
    found.dns.names["am"] = ["10.0.0.1"]
    await until(lambda: found.discovery.current)
    asked = len(found.dns.asked)
    await asyncio.sleep(0.1)
    assert len(found.dns.asked) == asked
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
