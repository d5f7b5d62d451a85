"""`check-config --probe`: what a proxy with these settings would meet, one line for each finding."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from proxy.cli import comparing, running, texts
from proxy.cli.client import RequestFailed

if TYPE_CHECKING:
    from proxy.config import Settings

ABOUT = (
    "also ask what a proxy would depend on: Alertmanager, its configuration and silences, the store, and, with "
    "llm.enabled, the model: that costs ONE CALL about a made-up alert (two, where its first answer is no verdict). "
    "Takes up to 30 s, and changes nothing"
)


def run(settings: Settings, output: str) -> int:
    """Print what the probe finds; return 1 when there is an error among it."""
    from proxy.app.probing import Level, probe  # late: the other commands need none of it
    from proxy.telemetry import configure_logging

    configure_logging("error", settings.log.format)
    try:
        admin = running.admin_url(settings.web)
    except RequestFailed:
        admin = None  # any port
    try:
        found = asyncio.run(probe(settings, admin=admin))
    except KeyboardInterrupt:
        return comparing.INTERRUPTED
    if output == "json":
        texts.say(json.dumps([asdict(one) for one in found], indent=2))
    else:
        for one in found:
            texts.say(texts.plain(f"{one.level:<7}  {one.check}: {one.message}"))
    return 1 if any(one.level is Level.ERROR for one in found) else 0
