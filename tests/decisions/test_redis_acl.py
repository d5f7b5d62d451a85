"""The rights that the documentation asks for are what the proxy needs, in a database of its own and in a Cluster."""

import re
from pathlib import Path

import pytest
from kept import an_identity, kept, loaded
from redis.crc import key_slot
from redis_servers import redis_server

from proxy.decisions.store import Change

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "identity.md"
A = an_identity("A")


def documented(prefix: str) -> list[str]:
    """Return the command of the page, for another prefix."""
    [line] = re.findall(r"^ACL SETUSER aiproxy .*$", PAGE.read_text(), re.MULTILINE)
    *command, rights = line.split(maxsplit=3)
    return [*command, *rights.replace("PASSWORD", "s3cret").replace("aiproxy", prefix).split()]


@pytest.fixture
def permitted(prefix, redis_store):
    """Return a function that opens a store as a user who has the documented rights."""

    def open_(servers, url: str):
        for server in [servers] if isinstance(servers, redis_server) else servers.servers:
            with server.client() as client:
                client.execute_command("ACL", "DELUSER", "aiproxy")
                client.execute_command(*documented(prefix))
        return redis_store(url, username="aiproxy", password="s3cret")

    return open_


async def does_all_there_is(store) -> None:
    changes = store.changes()
    assert await anext(changes) == Change()
    for n in range(64):
        await store.claim([kept(f"{n}")])
    assert len(await loaded(store)) == len(await store.get([an_identity(f"{n}") for n in range(64)])) == 64
    assert (await store.beat("me", "")).generations
    await store.write_state("state")
    assert await anext(changes) == Change()
    await store.forget([an_identity("0")])
    assert await anext(changes) == Change(frozenset({an_identity("0")}))
    await changes.aclose()


@pytest.mark.parametrize("database", ["", "/3"])
async def test_one_server_needs_no_other_rights(alone, permitted, database):
    await does_all_there_is(permitted(alone, alone.url + database))


async def test_a_cluster_needs_no_other_rights_not_even_while_slots_move(cluster, permitted, prefix):
    store = permitted(cluster, cluster.url)
    await does_all_there_is(store)
    with cluster.moving(key_slot(f"{prefix}:d:{A.hex()}".encode())):
        assert set(await store.claim([kept("A")])) == {A}
