"""What may happen to one proxy before one Alertmanager, and what people may not notice of it."""

from __future__ import annotations

import asyncio
import signal
from itertools import permutations
from pathlib import Path

from disturbed import Disturbed, kill, switch
from lab import LIGHT, Lab, between_flushes
from real import Proxy

from proxy.policy import Mode

# The process


async def nothing(run: Lab) -> None:
    await asyncio.sleep(2)


async def kill_often(run: Lab, times: int = 3) -> None:
    for _ in range(times):
        await kill(run)


async def kill_50_times(run: Lab) -> None:
    await kill_often(run, 50)


async def stop(run: Lab) -> None:
    await run.proxy.stop()
    await run.proxy.start()


# What it keeps


def files(px: Proxy) -> list[Path]:
    """The store's files, its log and its lock among them."""
    return [path for path in (px.home / "data").iterdir() if path.name.startswith("decisions.db")]


async def delete_the_file(run: Lab) -> None:
    found = files(run.proxy)
    assert found, "there is a file"
    for path in found:
        path.unlink()
    await asyncio.sleep(3)


async def delete_the_file_and_kill(run: Lab) -> None:
    await delete_the_file(run)
    await run.proxy.kill()
    await run.proxy.start()


async def lose_the_store(px: Proxy) -> None:
    await px.kill()
    for path in files(px):
        path.unlink()


async def kill_and_delete_the_file(run: Lab) -> None:
    await lose_the_store(run.proxy)
    await run.proxy.start()


# What it is told


async def every_switch(run: Lab) -> None:
    """All six, and an alert begins in each mode."""
    begun = []
    for was, mode in permutations(Mode, 2):
        for one in (was, mode):
            assert await switch(run.proxy, one.value) == 200
            begun.append(f"From {was.value} to {mode.value}, in {one.value}")
            run.sender.fire(begun[-1])
            while not (labels := await run.labels(begun[-1])):
                await asyncio.sleep(0.1)
            assert ("ai_severity" in labels[0]) == (one is Mode.ENRICHED)
    await run.told("firing", *begun)
    await run.ends(*begun)
    await run.calm()
    run.told_once(*begun)
    assert await switch(run.proxy, "enriched") == 200


async def restart_with(run: Lab, *flags: str) -> None:
    """A deployment: the last of several flags of one name holds."""
    run.proxy.command += flags
    await run.proxy.stop()
    await run.proxy.start()


async def canary_to_nothing_and_back(run: Lab) -> None:
    for percent in (0, 100):
        assert await switch(run.proxy, "enriched", canary={"percent": percent}) == 200
        await asyncio.sleep(2.5)


async def other_settings(run: Lab) -> None:
    await restart_with(run, "--enrichment.mode=transparent")
    await asyncio.sleep(2.5)
    await restart_with(run, "--enrichment.mode=enriched", '--enrichment.skip=alertname=~".*"')
    await asyncio.sleep(2.5)
    await restart_with(run, '--enrichment.skip=alertname="Nobody"', "--enrichment.canary.percent=0")
    await asyncio.sleep(2.5)
    await restart_with(run, "--enrichment.canary.percent=100", "--enrichment.severity-floor=author")


async def reload(run: Lab) -> None:
    """The same process reads its file again: nobody takes part, everybody is left alone, and all is as it was."""
    file = run.proxy.home / "config.yaml"
    file.write_text("{}")
    await restart_with(run, f"--config.file={file}")
    for text in ("enrichment: {canary: {percent: 0}}", "enrichment: {skip: ['alertname=~\".+\"']}", "{}"):
        file.write_text(text)
        run.proxy.process.send_signal(signal.SIGHUP)
        await asyncio.sleep(2.5)


async def other_names_and_an_empty_store(run: Lab) -> None:
    await run.proxy.stop()
    for path in files(run.proxy):
        path.unlink()
    await restart_with(
        run,
        "--enrichment.severity-label=llm_severity",
        "--enrichment.category-label=llm_category",
        *("--enrichment.former-labels=ai_severity", "--enrichment.former-labels=ai_category"),
    )


# Its neighbours


async def alertmanager_restarts(run: Lab) -> None:
    """It comes back empty, and remembers only what it has told."""
    await between_flushes()
    await run.ams[0].stop()
    await run.ams[0].start()


async def both_restart(run: Lab) -> None:
    await between_flushes()
    await asyncio.gather(run.ams[0].stop(), run.proxy.kill())
    await asyncio.gather(run.ams[0].start(), run.proxy.start())


async def prometheus_restarts(run: Lab) -> None:
    run.sender.begin_anew()
    await asyncio.sleep(2)


async def the_class_is_forgotten(run: Lab) -> None:
    await asyncio.sleep(3)


# The clock


async def the_clock_jumps(run: Lab) -> None:
    """Ahead, back, and right again; by more than a decision outlives the last sign of its alert."""
    file = Path(run.proxy.env["CLOCK_OFFSET"])
    for offset in (5400, -5400, 0):
        set_clock(file, offset)
        await asyncio.sleep(3)


def set_clock(file: Path, offset: int) -> None:
    new = file.with_suffix(".new")
    new.write_text(str(offset))
    new.replace(file)


async def with_a_clock(binary: str, directory: Path) -> None:
    file = directory / "offset"
    set_clock(file, 0)
    env = {"PYTHONPATH": f"{Path(__file__).parent / 'clock'}:{LIGHT}", "CLOCK_OFFSET": str(file)}
    await Disturbed(the_clock_jumps, options={"env": env})(binary, directory)


DISTURBANCES = {
    "the model never says the same": Disturbed(nothing),
    "kill -9": Disturbed(kill_often),
    "kill -9, with no file at all": Disturbed(kill_often, ["--store.url=memory:"]),
    "stop": Disturbed(stop),
    "file deleted": Disturbed(delete_the_file),
    "file deleted and killed": Disturbed(delete_the_file_and_kill),
    "killed and file deleted": Disturbed(kill_and_delete_the_file),
    "every switch": Disturbed(every_switch),
    "canary": Disturbed(canary_to_nothing_and_back),
    "configuration": Disturbed(other_settings),
    "reload": Disturbed(reload),
    "renamed, and file deleted": Disturbed(other_names_and_an_empty_store),
    "Alertmanager restarts": Disturbed(alertmanager_restarts),
    "Alertmanager and the proxy restart at once": Disturbed(both_restart),
    "Prometheus restarts": Disturbed(prometheus_restarts),
    "the class cache forgets": Disturbed(the_class_is_forgotten, ["--llm.enable-cache=true", "--llm.cache-ttl=1s"]),
    "clock": with_a_clock,
}
LONG = {"kill -9, 50 times": Disturbed(kill_50_times)}
