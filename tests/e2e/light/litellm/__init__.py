"""What the model worker uses of LiteLLM, and none of its weight: with `light` on PYTHONPATH it takes LiteLLM's place.

Each start of the real one costs two seconds of CPU, and a laboratory starts dozens of proxies. Who watches identities
needs a model with moods, however it is asked; `test_identity` asks through LiteLLM.
"""

from __future__ import annotations

import asyncio
import http.client
import json
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

from litellm import exceptions

_version = SimpleNamespace(version="0 (light)")


def get_llm_provider(model: str) -> str:
    return model.partition("/")[0]


async def acompletion(*, messages: Any, timeout: float, api_base: str, model: str, **_: Any) -> SimpleNamespace:  # noqa: ASYNC109 - LiteLLM's name
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
    messages = [SimpleNamespace(**choice["message"]) for choice in answer["choices"]]
    return SimpleNamespace(choices=[SimpleNamespace(message=message) for message in messages])


async def close_litellm_async_clients() -> None:
    pass
