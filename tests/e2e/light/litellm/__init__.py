"""What the model worker uses of LiteLLM, and none of its weight: with `light` on PYTHONPATH it takes LiteLLM's place.

Each start of the real one costs two seconds of CPU, and a laboratory starts dozens of proxies. Who watches identities
needs a model with moods, however it is asked; `test_identity` asks through LiteLLM.
"""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

from litellm import exceptions

_version = SimpleNamespace(version="0 (light)")


def get_llm_provider(model: str) -> str:
    return model.partition("/")[0]


async def acompletion(*, messages: Any, timeout: float, api_base: str, model: str, stream: bool, **_: Any) -> Any:  # noqa: ASYNC109 - LiteLLM's name
    def ask() -> Any:
        url = urlsplit(api_base)
        server = http.client.HTTPConnection(url.hostname, url.port, timeout=timeout)
        try:
            asked = json.dumps({"model": model, "messages": messages})
            server.request("POST", f"{url.path}/chat/completions", asked, {"Content-Type": "application/json"})
            return json.loads(server.getresponse().read())
        except (OSError, http.client.HTTPException, ValueError) as exc:
            raise exceptions.APIConnectionError from exc
        finally:
            server.close()

    answer = await asyncio.to_thread(ask)
    said = [SimpleNamespace(**choice["message"]) for choice in answer["choices"]]
    if stream:
        return _Stream(said)
    return SimpleNamespace(choices=[SimpleNamespace(message=message) for message in said])


class _Stream:
    """An answer in one piece."""

    def __init__(self, said: list[SimpleNamespace]) -> None:
        self.chunks = [SimpleNamespace(choices=[SimpleNamespace(delta=message)]) for message in said]

    async def __aiter__(self) -> AsyncIterator[SimpleNamespace]:
        for chunk in self.chunks:
            yield chunk


async def close_litellm_async_clients() -> None:
    pass
