"""One firing and one resolved notification an alert, whatever happens. The scenarios run side by side."""

from __future__ import annotations

import alone
import naive
import pytest
import replicas
import soak
import unavoidable
import unharmed
import with_prometheus

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]  # they wait for their turn


def table(scenarios):
    return pytest.mark.parametrize("scenario", scenarios.values(), ids=scenarios.keys())


@table(with_prometheus.QUICK)
async def test_with_a_real_prometheus(am_binary, scenario, side_by_side, request):
    await side_by_side[request.node.nodeid]


@table(replicas.REDIS)
async def test_two_proxies_agree_though(am_binary, scenario, side_by_side, request):
    await side_by_side[request.node.nodeid]


@table(alone.DISTURBANCES)
async def test_one_notification_though(am_binary, scenario, side_by_side, request):
    await side_by_side[request.node.nodeid]


@table(replicas.UNSHARED)
async def test_two_proxies_agree_by_the_rules(am_binary, scenario, side_by_side, request):
    await side_by_side[request.node.nodeid]


@table(unharmed.UNHARMED)
async def test_with_labels(am_binary, scenario, side_by_side, request):
    await side_by_side[request.node.nodeid]


@table(unavoidable.ONE)
async def test_what_no_proxy_can_avoid(am_binary, scenario, side_by_side, request):
    await side_by_side[request.node.nodeid]


@table({"without end": naive.without_end})
async def test_a_naive_proxy(am_binary, scenario, side_by_side, request):
    await side_by_side[request.node.nodeid]


@pytest.mark.proof
@pytest.mark.timeout(600)
@table(alone.LONG | unavoidable.TWO | replicas.LONG | with_prometheus.LONG | soak.LONG)
async def test_in_the_long_run(am_binary, scenario, side_by_side, request):
    await side_by_side[request.node.nodeid]
