"""Who comes in: users with passwords that bcrypt has hashed, and bearers of a token."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from typing import Final
from weakref import WeakValueDictionary

import bcrypt
from aiohttp import web
from cachetools import LRUCache

_REMEMBERED: Final = 1000
_LENGTH: Final = 72
"""Bytes of a password that bcrypt looks at."""


class Users:
    """Knows users by name and password, and remembers whom it knew: bcrypt is slow on purpose.

    One password is compared at a time, off the event loop, and of those who wait one of each address: whoever tries
    many holds up those who come for the first time by one comparison, and nobody else.
    """

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._key = secrets.token_bytes(32)
        # By themselves, so that those who guess do not make us forget those who know.
        self._right: LRUCache[bytes, bool] = LRUCache(_REMEMBERED)
        self._wrong: LRUCache[bytes, bool] = LRUCache(_REMEMBERED)

    async def know(self, request: web.BaseRequest, hashes: Mapping[str, bytes]) -> bool:
        """Return whether a request shows one of the users, whose hashes are given by name, and the password."""
        name, password = _credentials(request)
        if name is None or not hashes:
            return False
        # A name that there is not takes as long as one that there is, so that the time does not tell.
        wanted = hashes.get(name) or next(iter(hashes.values()))
        key = self._remembered_as(name, wanted, password)
        if (found := self._remembered(key)) is not None:
            return found
        own_turn = self._turns.setdefault(request.remote or "", asyncio.Lock())
        async with own_turn, self._turn:
            if (found := self._remembered(key)) is not None:
                return found
            same = await asyncio.to_thread(bcrypt.checkpw, password[:_LENGTH], wanted)
            found = same and name in hashes
            (self._right if found else self._wrong)[key] = found
        return found

    def _remembered(self, key: bytes) -> bool | None:
        found = self._right.get(key)
        return self._wrong.get(key) if found is None else found

    def _remembered_as(self, name: str, wanted: bytes, password: bytes) -> bytes:
        made = hmac.new(self._key, digestmod=hashlib.sha256)
        for part in (name.encode("utf-8", "surrogateescape"), wanted, password):
            made.update(len(part).to_bytes(8, "big") + part)
        return made.digest()


def bears(request: web.BaseRequest, token: str) -> bool:
    """Return whether a request shows `token`; an empty one is nobody's."""
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    key = given.strip().encode(errors="surrogateescape")
    return bool(token) and scheme.lower() == "bearer" and hmac.compare_digest(key, token.encode())


def _credentials(request: web.BaseRequest) -> tuple[str | None, bytes]:
    """Return the name and the password that a request shows; no name where it shows none."""
    scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None, b""
    try:
        decoded = base64.b64decode(encoded.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        return None, b""
    name, colon, password = decoded.partition(b":")
    return (name.decode("utf-8", "surrogateescape") if colon else None), password
