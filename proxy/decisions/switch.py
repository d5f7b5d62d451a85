"""Changing the mode while alerts live, here and on every proxy of one store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

import structlog

from proxy.decisions.canary import Canary
from proxy.decisions.recovery import Recovery
from proxy.decisions.rollout import Rollout
from proxy.decisions.state import Choice, State
from proxy.decisions.store import DecisionStore
from proxy.errors import StoreError, Superseded, SwitchRefused
from proxy.policy import Mode

log = structlog.get_logger(__name__)

LEAD: Final = timedelta(seconds=2)
"""How far ahead several proxies agree to begin labelling: all have heard of it by then, and read every POST."""
TICK: Final = 0.25
"""Seconds between looks at whether a switch has expired."""


class Memory(Protocol):
    """What this proxy alone remembers of the store's state, for a start at which the store does not answer."""

    def read(self) -> str | None: ...

    def write(self, state: str) -> None:
        """Remember it, aside."""
        ...


class Switch:
    """Changes the mode for alerts not seen yet; what is decided already stays.

    What was switched outranks what is `configured` until it is reset or expires. It is kept in the store, and every
    proxy of that store follows. A store that is away, or that has lost it, changes nothing.
    """

    def __init__(
        self,
        rollout: Rollout,
        recovery: Recovery,
        store: DecisionStore,
        configured: tuple[Mode, Canary],
        *,
        refused: Callable[[bool], str] = lambda _: "",
        memory: Memory | None = None,
        others_label: Callable[[], bool] = lambda: False,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`refused` tells why nobody may switch now, given whether somebody insists; `others_label`, whether another
        proxy of the store labels."""
        self._rollout = rollout
        self._recovery = recovery
        self._store = store
        self._configured = configured
        self._refused = refused
        self._memory = memory
        self._others_label = others_label
        self._now = now
        self._state = State()
        self._heard = True
        """Whether the store has answered since the start. Before, whatever it holds is newer."""
        self._asked = 0
        self._applying = asyncio.Lock()
        self._writing = asyncio.Lock()

    @property
    def source(self) -> str:
        """Where the mode comes from: the kind of store that keeps the switch, or `config`."""
        return self._store.kind if self.choice else "config"

    @property
    def choice(self) -> Choice | None:
        """What somebody switched to, while it holds."""
        choice = self._state.choice
        return choice if choice and (choice.until is None or choice.until > self._now()) else None

    @property
    def is_switching(self) -> bool:
        """Whether a switch is being kept: what comes in now is read, so that what goes bare is remembered."""
        return self._writing.locked()

    async def start(self, written: str | None, *, known: bool = True) -> None:
        """Take up what the store remembers, before the first alert comes.

        While it is not `known` what that is, what this proxy knew last holds, or else the configuration, and nothing
        is written.
        """
        self._heard = known
        if not known:
            written = self._memory.read() if self._memory else None
        self._state = self._read(written) or State()
        if self._state.choice and not self.choice:
            # Nobody knows what passed since it expired.
            self._state = replace(self._state, revision=self._state.revision + known, choice=None, labelling_since=None)
        if not known:
            self._apply()
            return
        mode, canary = self._wanted()
        since = self._state.labelling_since
        if mode is Mode.ENRICHED and since is None:
            since = self._now() + self._lead
            self._state = replace(self._state, revision=self._state.revision + 1, labelling_since=since)
        self._rollout.apply(mode, canary, since)
        self._end_labelling()
        if written != self._state.write():
            await self._write_again()
        self._remember()

    async def to(
        self,
        mode: Mode | None,
        *,
        by: str = "",
        origin: str = "",
        lasting: timedelta | None = None,
        canary: Canary | None = None,
        force: bool = False,
    ) -> None:
        """Switch to `mode`, for a time or until the next switch; None: back to what is configured.

        `by` and `origin` say who asked from where, for the log and for `choice`; `force`, that they accept what a
        proxy costs that cannot follow. Raises SwitchRefused, Superseded when somebody else asked for a mode meanwhile,
        and StoreError: then nothing has changed.
        """
        if mode is not None and (why := self._refused(force)):
            raise SwitchRefused(why)
        if not self._heard:
            raise StoreError("it has not answered since the start, and may hold a switch")
        self._asked += 1
        mine = self._asked
        now = self._now()
        choice = Choice(mode, now, by, origin, now + lasting if lasting else None, canary) if mode else None
        if self._begins_to_label(mode or self._configured[0]):
            # What passed unread until now lives in Alertmanager without labels. It must be known as bare before
            # the first label is given; while this runs, no POST passes unread.
            await self._recovery.again()
        async with self._writing:
            if mine != self._asked:
                raise Superseded("another switch was asked for in the meantime, and holds")
            was = self._rollout.mode
            state = State(self._state.revision + 1, choice, self._since(choice))
            await self._store.write_state(state.write())
            self._state = state
            self._apply()
        self._remember()
        log.warning(
            "mode switched",
            mode=self._rollout.mode.value,
            was=was.value,
            source=self.source,
            by=by,
            origin=origin,
            until=choice.until.isoformat() if choice and choice.until else None,
        )

    async def configure(self, mode: Mode, canary: Canary) -> None:
        """Go by another configuration from now on; what was switched still outranks it."""
        self._configured = mode, canary
        async with self._applying:
            mode, canary = self._wanted()
            if self._begins_to_label(mode):
                await self._recovery.again()
                if self._heard:
                    since = self._state.labelling_since or self._now() + self._lead
                    self._state = replace(self._state, revision=self._state.revision + 1, labelling_since=since)
            self._apply()
            self._end_labelling()
        await self._write_again()

    async def heard(self, written: str | None) -> None:
        """Follow what the store holds, if it is newer; write ours again, if it has lost it."""
        state = self._read(written)
        if not self._heard:
            await self._heard_first(state)
        elif state is None or state.revision < self._state.revision:
            await self._write_again()
        elif state != self._state:
            was, before = self._rollout.mode, self._state.choice
            self._state = state
            await self.follow()
            if before != state.choice:
                log.warning(
                    "mode switched elsewhere" if self.choice else "mode as configured",
                    mode=self._rollout.mode.value,
                    was=was.value,
                    by=self.choice.by if self.choice else None,
                    origin=self.choice.origin if self.choice else None,
                )
        self._remember()

    async def _heard_first(self, state: State | None) -> None:
        """Go by what the store holds, which did not answer at the start, and by what it does not hold of ours."""
        if state is not None and state.revision >= self._state.revision:
            self._state = state
        self._heard = True
        # What labels meanwhile has begun when the proxy has.
        began = self._rollout.labelling_since if self._wanted()[0] is self._rollout.mode is Mode.ENRICHED else None
        if began is not None and self._state.labelling_since is None:
            self._state = replace(self._state, revision=self._state.revision + 1, labelling_since=began)
        await self.follow()
        began = self._rollout.labelling_since
        if began is not None and self._state.labelling_since is None:
            self._state = replace(self._state, revision=self._state.revision + 1, labelling_since=began)
        if state != self._state:
            await self._write_again()

    async def follow(self) -> None:
        """Make the mode what it should be now."""
        async with self._applying:
            mode, canary = self._wanted()
            if mode is self._rollout.mode and canary == self._rollout.canary and not self._moved():
                # Others may have ceased to label since we looked last.
                if self._end_labelling():
                    await self._write_again()
                return
            if self._begins_to_label(mode):
                await self._recovery.again()
            self._apply()
            if self._end_labelling():
                await self._write_again()

    async def run(self) -> None:
        """Follow the clock: a switch may expire. The owner cancels it."""
        while True:
            await asyncio.sleep(TICK)
            was, switched = self._rollout.mode, self._state.choice
            try:
                await self.follow()
            except Exception:
                log.exception("a bug: the mode could not be followed, trying again")
            expired = switched is not None and switched is self._state.choice and self.choice is None
            if expired and was is not self._rollout.mode:
                log.warning("the switch has expired", mode=self._rollout.mode.value, was=was.value)

    def _wanted(self) -> tuple[Mode, Canary]:
        mode, canary = self._configured
        choice = self.choice
        return (choice.mode, choice.canary or canary) if choice else (mode, canary)

    def _apply(self) -> None:
        mode, canary = self._wanted()
        since = self._state.labelling_since
        if mode is Mode.ENRICHED and since is None:
            since = self._now() + self._lead  # written by a proxy that is configured otherwise
        self._rollout.apply(mode, canary, since)

    def _moved(self) -> bool:
        """Whether the beginning of labelling is another one than we go by."""
        since = self._state.labelling_since
        return self._rollout.mode is Mode.ENRICHED and since is not None and since != self._rollout.labelling_since

    def _begins_to_label(self, mode: Mode) -> bool:
        return mode is Mode.ENRICHED and self._rollout.mode is not Mode.ENRICHED

    def _since(self, choice: Choice | None) -> datetime | None:
        """Return since when alerts are labelled under `choice`, all the while or once it has expired."""
        mode = choice.mode if choice else self._configured[0]
        if mode is Mode.ENRICHED:
            continues = self._rollout.mode is Mode.ENRICHED
            return (self._rollout.labelling_since if continues else None) or self._now() + self._lead
        if choice and choice.until and self._configured[0] is Mode.ENRICHED:
            return choice.until + self._lead
        return None

    def _end_labelling(self) -> bool:
        """Note that alerts go bare from now on, when nobody labels any more; return whether that is news."""
        over = (
            self._heard
            and self._rollout.mode is not Mode.ENRICHED
            and self._state.labelling_since is not None
            and not self._announced()
            and not self._others_label()
        )
        if over:
            self._state = replace(self._state, revision=self._state.revision + 1, labelling_since=None)
        return over

    def _announced(self) -> bool:
        """Whether labelling begins by itself, when the switch expires."""
        return self.choice is not None and self.choice.until is not None and self._configured[0] is Mode.ENRICHED

    @property
    def _lead(self) -> timedelta:
        return LEAD if self._store.shared else timedelta()

    def _read(self, written: str | None) -> State | None:
        if written is None:
            return None
        try:
            return State.read(written)
        except ValueError as exc:
            log.error("what the store holds of switches cannot be read, and is replaced", error=str(exc))
            return None

    async def _write_again(self) -> None:
        if not self._heard:
            return  # what the store holds is newer
        async with self._writing:
            try:
                await self._store.write_state(self._state.write())
            except StoreError as exc:
                log.warning("the mode could not be kept in the store; tried again", error=str(exc))

    def _remember(self) -> None:
        if self._memory is not None and self._heard:
            self._memory.write(self._state.write())
