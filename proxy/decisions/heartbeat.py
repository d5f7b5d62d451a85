"""What the proxies of one store hear of each other, once a second and whenever something changes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any, Final

import structlog

from proxy.decisions.living import Living
from proxy.decisions.reach import Reach
from proxy.decisions.store import Beat, Change, DecisionStore
from proxy.decisions.switch import Switch
from proxy.errors import StoreError, StoreTimeout
from proxy.policy import Mode

log = structlog.get_logger(__name__)

EVERY_SHARED: Final = 0.5
"""Seconds between beats: a switch whose announcement is missed is followed within one second all the same."""
EVERY: Final = 5.0
"""As above for a store of this proxy alone, which can still be deleted under it."""


class Heartbeat:
    """Keeps the reach of the store, the switch and the other proxies current."""

    def __init__(
        self,
        store: DecisionStore,
        reach: Reach,
        living: Living,
        *,
        name: str,
        me: Callable[[], Mapping[str, Any]],
    ) -> None:
        """`me` is what the others are told; `mode`, `labelled`, `agreement` and `reaches` in it are understood."""
        self._store = store
        self._reach = reach
        self._living = living
        self.name = name
        self._me = me
        self._generations: dict[str, str] = {}
        """Of all parts of the store that ever answered: one that is heard for the first time has lost nothing."""
        self._wanted = asyncio.Event()
        self.peers: dict[str, dict[str, Any]] = {}
        """What each proxy says of itself, by its name; this one is among them. As last heard."""

    @property
    def others_label(self) -> bool:
        """Whether another proxy of the store gives labels, or sends alerts that have some; as far as is known."""
        others = [peer for name, peer in self.peers.items() if name != self.name]
        return any(peer.get("mode") == Mode.ENRICHED.value or peer.get("labelled") for peer in others)

    @property
    def reaching(self) -> int:
        """How many proxies of the store can use it, this one among them: being heard of is not enough.

        One whose answers come too late is heard of all the same.
        """
        return sum(bool(peer.get("reaches", True)) for peer in self.peers.values())

    @property
    def agree(self) -> bool:
        """Whether all proxies of the store have the same configuration and rules."""
        return len({peer.get("agreement") for peer in self.peers.values()}) <= 1

    async def first(self) -> tuple[bool, str | None]:
        """Hear, before anything else, what was switched; return whether the store answered, and what it knows."""
        for pause in (0.1, 0.3, 0.0):
            try:
                written = await self._beat()
            except Exception:
                log.exception("a bug: hearing from the store failed")
                return False, None
            if self._reach.up:
                return True, written
            await asyncio.sleep(pause)
        return False, None

    async def run(self, switch: Switch) -> None:
        """Beat on; the owner cancels it."""
        every = EVERY_SHARED if self._store.shared else EVERY
        async with asyncio.TaskGroup() as tasks:
            if self._store.shared:
                tasks.create_task(self._listen())
            following: asyncio.Task[None] = tasks.create_task(asyncio.sleep(0))
            while True:
                try:
                    async with asyncio.timeout(every):
                        await self._wanted.wait()
                except TimeoutError:
                    pass
                self._wanted.clear()
                try:
                    written = await self._beat()
                    if self._reach.up and following.done():
                        # Aside: to begin labelling Alertmanager is asked, and the beat must go on meanwhile.
                        following = tasks.create_task(self._follow(switch, written))
                except Exception:
                    log.exception("a bug: hearing from the store failed")

    async def _follow(self, switch: Switch, written: str | None) -> None:
        try:
            await switch.heard(written)
        except Exception:
            log.exception("a bug: following a switch failed")

    async def _beat(self) -> str | None:
        try:
            beat = await self._ask()
        except StoreError as exc:
            self._reach.lost(exc)
            return None
        was_away = not self._reach.up
        self._reach.found()
        if any(self._generations.get(part, found) != found for part, found in beat.generations.items()):
            log.error("the decision store has lost what it held; it is written anew")
            self._living.nothing_is_kept()
        elif was_away and self._store.shared:
            self._living.nothing_is_kept()  # it may have lost its last writes
        self._generations |= beat.generations
        self.peers = {name: _object(text) for name, text in beat.peers.items()}
        return beat.state

    async def _ask(self) -> Beat:
        me = json.dumps(dict(self._me()))
        try:
            return await self._store.beat(self.name, me)
        except StoreTimeout:
            return await self._store.beat(self.name, me)  # one hiccup is no outage

    async def _listen(self) -> None:
        heard = False
        while True:
            if heard:
                # What was forgotten or claimed while we did not listen shows when we tell what we go by.
                self._living.nothing_is_kept()
            heard = True
            try:
                async with aclosing(self._store.changes()) as changes:
                    async for change in changes:
                        self._heard(change)
            except StoreError:
                pass  # the beat tells
            except Exception:
                log.exception("a bug: listening to the store failed")
            await asyncio.sleep(EVERY_SHARED)

    def _heard(self, change: Change) -> None:
        for identity in change.forgotten:
            self._living.forget(identity)
        if not change.forgotten:
            self._wanted.set()


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
