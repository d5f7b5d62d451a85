"""Verdicts as models give them, and a way to look into the second tier of the class cache behind its back."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
from pathlib import Path
from typing import Any

import redis
from redis_servers import redis_cluster, redis_sentinel, redis_server

from proxy.classification.classes import ClassKey
from proxy.classification.classification import Category, Classification, Confidence, Severity, Source

RECORD: dict[str, Any] = {
    "format": 1,
    "model": "openai/gpt-4o",
    "severity": "warning",
    "category": "storage",
    "confidence": "high",
    "summary": "The disk fills up.",
    "recommendations": ["Make room."],
}
"""What is stored of `a_verdict()`."""


def a_class(name: str) -> ClassKey:
    return ClassKey(hashlib.blake2b(name.encode(), digest_size=16).digest())


def a_verdict(severity: str = "warning", **more: Any) -> Classification:
    return Classification(
        severity=Severity(severity),
        category=more.pop("category", Category.STORAGE),
        confidence=more.pop("confidence", Confidence.HIGH),
        source=Source.LLM,
        summary=more.pop("summary", "The disk fills up."),
        recommendations=more.pop("recommendations", ("Make room.",)),
        model=more.pop("model", "openai/gpt-4o"),
        **more,
    )


def a_record(**changed: Any) -> bytes:
    """The record of `a_verdict()` with members changed; those that are None are left out."""
    return json.dumps({name: value for name, value in (RECORD | changed).items() if value is not None}).encode()


class InRedis:
    """The keys of one prefix, on whichever server they are."""

    def __init__(self, servers: redis_server | redis_cluster | redis_sentinel, prefix: str) -> None:
        self._servers = servers
        self._prefix = prefix

    def run(self, command: str, kind: str, key: ClassKey, *arguments: bytes | str | float) -> Any:
        """Return the answer to `command` on the key of `kind`, `v` or `l`."""
        if isinstance(self._servers, redis_cluster):
            asked = list(self._servers.servers)
        else:
            asked = [self._servers.primary() if isinstance(self._servers, redis_sentinel) else self._servers]
        for server in asked:
            with (
                redis.Redis(port=server.port, socket_timeout=5, retry=None) as client,
                contextlib.suppress(redis.exceptions.MovedError),
            ):
                return client.execute_command(command, f"{self._prefix}:{kind}:{key.hex()}", *arguments)
        raise AssertionError("no server has this key")

    def write(self, key: ClassKey, record: bytes) -> None:
        self.run("SET", "v", key, record, "PX", 60_000)

    def read(self, key: ClassKey) -> bytes | None:
        return self.run("GET", "v", key)


class InSqlite:
    """The table."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def run(self, statement: str, *arguments: Any) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(self.path, timeout=5)) as db, db:
            return db.execute(statement, arguments).fetchall()

    def write(self, key: ClassKey, record: object) -> None:
        self.run("REPLACE INTO verdicts SELECT ?, max(until), ? FROM verdicts", key, record)

    def read(self, key: ClassKey) -> bytes | None:
        return next((row[0] for row in self.run("SELECT record FROM verdicts WHERE class = ?", key)), None)
