"""The settings: declared in `settings`, loaded from `sources`, listed and compared by what is in `catalog`."""

from __future__ import annotations

from proxy.config.alertmanager import Alertmanager, TlsConfig
from proxy.config.catalog import Flag, differing, flags, masked, reference, variables
from proxy.config.kinds import Address, Secret, closest
from proxy.config.settings import (
    Enrichment,
    Llm,
    Log,
    LogFormat,
    LogLevel,
    Settings,
    Store,
)
from proxy.config.sources import Loaded, load, read_secret
from proxy.config.web import Web
from proxy.durations import format_duration

__all__ = [
    "Address",
    "Alertmanager",
    "Enrichment",
    "Flag",
    "Llm",
    "Loaded",
    "Log",
    "LogFormat",
    "LogLevel",
    "Secret",
    "Settings",
    "Store",
    "TlsConfig",
    "Web",
    "closest",
    "differing",
    "flags",
    "format_duration",
    "load",
    "masked",
    "read_secret",
    "reference",
    "variables",
]
