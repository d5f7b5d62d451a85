"""Changing the mode while alerts live."""

from __future__ import annotations

import structlog

from proxy.decisions.recovery import Recovery
from proxy.decisions.rollout import Rollout
from proxy.errors import Superseded
from proxy.policy import Mode

log = structlog.get_logger(__name__)


class Switch:
    """Changes the mode for alerts not seen yet; what is decided already stays."""

    def __init__(self, rollout: Rollout, recovery: Recovery) -> None:
        self._rollout = rollout
        self._recovery = recovery
        self._asked = 0

    async def to(self, mode: Mode, asked_by: str) -> None:
        """Switch to `mode`. `asked_by` is for the log.

        Raises Superseded when somebody else asked for a mode meanwhile, and StoreError: then nothing has changed.
        """
        self._asked += 1
        mine = self._asked
        was = self._rollout.mode
        if mode is Mode.ENRICHED and was is not mode:
            # What passed unread until now lives in Alertmanager without labels. It must be known as bare before
            # the first label is given; while this runs, no POST passes unread.
            await self._recovery.again()
        if mine != self._asked:
            raise Superseded("another switch was asked for in the meantime, and holds")
        await self._rollout.switch(mode)
        log.warning("mode switched", mode=mode.value, was=was.value, asked_by=asked_by)
