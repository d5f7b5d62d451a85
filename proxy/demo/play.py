"""What happens in the demo, in its order."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from proxy.demo.children import DemoError
from proxy.demo.notifications import RECEIVERS, Board
from proxy.demo.programs import Programs
from proxy.demo.stage import Say, Stage, alertnames

ONCE_WITHIN: Final = 75.0
"""Seconds after which `--once` judges what has come by then. To end the programs takes a few more."""

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def run(*, once: bool, model: str | None) -> int:
    """Run the demo until Ctrl-C, or `once` until it has shown what it is to show; return the exit status.

    0: with `once`, that an AI label routed a notification; else that the demo ended because it was told to.
    """
    try:
        return asyncio.run(_run(once=once, model=model))
    except DemoError as exc:
        print(f"demo: {exc}", file=sys.stderr, flush=True)
        return 1


async def _run(*, once: bool, model: str | None) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in _SIGNALS:
        # nohup asks for a demo that goes on when the terminal is gone.
        if signum is not signal.SIGHUP or signal.getsignal(signum) is not signal.SIG_IGN:
            loop.add_signal_handler(signum, stop.set)

    def say(line: str) -> None:
        try:
            print(line, flush=True)
        except OSError:
            # Whoever read it has left, as in `make demo | head`. Without this, Python complains again when it ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            stop.set()

    return await play(once=once, model=model, stop=stop, say=say)


async def play(*, once: bool, model: str | None, stop: asyncio.Event, say: Say, proxy_flags: Sequence[str] = ()) -> int:
    """Play until `stop`, and leave nothing behind; return the exit status.

    `proxy_flags` come last on the proxy's command line. Raises DemoError.
    """
    programs = Programs.find()
    async with AsyncExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="alertmanager-ai-proxy-demo-")))
        board = Board(say)
        stage = Stage(stack, home, board, say)
        # In a task of its own: what is left to do here is the way out, and nobody cancels that.
        scene = asyncio.create_task(_scene(stage, programs, once, model, proxy_flags), name="scene")
        told = asyncio.create_task(stop.wait(), name="told to stop")
        fallen = asyncio.create_task(stage.fallen.get(), name="a program ended")
        tasks = (scene, told, fallen)
        await asyncio.wait(tasks, timeout=ONCE_WITHIN if once else None, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        stage.leaving = board.closed = True

        if not stop.is_set():
            if not fallen.cancelled():
                raise await fallen.result().failure()
            if not scene.cancelled():
                scene.result()  # raises what it raised
        if once:
            return _judge(board, say)
        say("Ending what was started ...")
    return 0


async def _scene(stage: Stage, programs: Programs, once: bool, model: str | None, proxy_flags: Sequence[str]) -> None:
    """Start everything, then wait: with `once` until each alert was notified, else for ever."""
    webhook = await stage.open_receiver()
    local = await stage.start_local_model() if model == "local" else None
    alertmanager = await stage.start_alertmanager(programs.alertmanager, webhook)
    data, admin = await stage.start_proxy(alertmanager, local, proxy_flags)
    verdicts = await stage.settle(admin, local)
    # Last, so that all alerts begin after the proxy did: it labels no others.
    prometheus = await stage.start_prometheus(programs.prometheus, data)
    for line in (
        # Debian's Prometheus has only the classic pages.
        f"Prometheus    {await stage.page(prometheus, '/alerts', '/classic/alerts', '/')}",
        f"Alertmanager  {data}/  (through the proxy; Debian ships no page: amtool --alertmanager.url={data} alert)",
        f"Proxy         {await stage.page(admin, '/', '/api/v1/status')}",
        *verdicts,
        "Routes        " + ", ".join(f"{severity} to {receiver}" for severity, receiver in RECEIVERS.items()),
        "",
        "The first alerts come some seconds after the start of Prometheus."
        + ("" if once else " Ctrl-C ends everything."),
        "",
    ):
        stage.say(line)
    if once:
        await stage.board.has_shown(alertnames())
    else:
        await asyncio.Event().wait()


def _judge(board: Board, say: Say) -> int:
    """Say what came of it; return the exit status."""
    routed = [shown for shown in board.shown if shown.routed_by_label]
    say("")
    if missing := sorted(alertnames() - {shown.alertname for shown in board.shown}):
        say(f"Not seen in time: {', '.join(missing)}.")
    say(f"{len(routed)} of {len(board.shown)} notifications were routed by their ai_severity.")
    return 0 if routed else 1
