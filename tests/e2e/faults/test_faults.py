"""Nothing acknowledged is lost and no identity changes, whatever breaks. The scenarios run side by side."""

from __future__ import annotations

import pytest
from faults import broken, dead, machine, restarts
from real import alertmanagers

pytestmark = pytest.mark.asyncio(loop_scope="module")

NEWEST = pytest.mark.parametrize("am_binary", alertmanagers()[-1:] or [None], indirect=True, ids=["newest"])
"""One Alertmanager is enough where the wire is broken, and the other one's answers are the same."""


@NEWEST
@pytest.mark.parametrize("scenario", dead.QUICK.values(), ids=dead.QUICK.keys())
async def test_a_neighbour(am_binary, scenario, side_by_side, request):
    await side_by_side[request.node.nodeid]


@NEWEST
@pytest.mark.parametrize("scenario", broken.BROKEN.values(), ids=broken.BROKEN.keys())
async def test_a_post_and_a_wire_that_breaks(am_binary, scenario, side_by_side, request):
    await side_by_side[request.node.nodeid]


@NEWEST
@pytest.mark.parametrize("scenario", machine.MACHINE.values(), ids=machine.MACHINE.keys())
async def test_a_post_and_a_machine_that_fails(am_binary, scenario, side_by_side, request):
    await side_by_side[request.node.nodeid]


@NEWEST
@pytest.mark.parametrize("scenario", restarts.QUICK.values(), ids=restarts.QUICK.keys())
async def test_nothing_is_lost_through(am_binary, scenario, side_by_side, request):
    await side_by_side[request.node.nodeid]


@pytest.mark.proof
@pytest.mark.timeout(900)
@pytest.mark.parametrize("scenario", restarts.LONG.values(), ids=restarts.LONG.keys())
async def test_nothing_is_lost_in_the_long_run_through(am_binary, scenario, side_by_side, request):
    await side_by_side[request.node.nodeid]


@NEWEST
@pytest.mark.proof
@pytest.mark.timeout(900)
@pytest.mark.parametrize("scenario", dead.LONG.values(), ids=dead.LONG.keys())
async def test_a_neighbour_for_minutes(am_binary, scenario, side_by_side, request):
    await side_by_side[request.node.nodeid]
