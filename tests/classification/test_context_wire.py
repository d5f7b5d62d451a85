"""What a file of context says arrives at each provider: the real LiteLLM in a real worker."""

from __future__ import annotations

from contextlib import AsyncExitStack

from contexts import DB, WHOLE
from fake_provider import FakeProvider, verdict
from fakes import settings
from workers import PROVIDERS, Watched, a_model, config

from proxy.alert import Alert
from proxy.app.prompting import chosen_prompts
from proxy.classification.worker.configuration import WorkerState

ALERT = Alert({"alertname": "Slow", "team": "shop", "service": "checkout"})
ANSWER = '"severity": "info", "category": "capacity", "confidence": "high", "summary": "Mails go out late."'
SAID = ("You classify alerts", "QueueGrows", ANSWER.replace('"', '\\"'), "Takes the money; owned by team shop.", "Slow")
"""In the order in which it stands in the chat."""


async def test_services_and_examples_arrive_at_each_provider_in_their_order(tmp_path):
    (tmp_path / "context.yaml").write_text(WHOLE)
    (tmp_path / "db.jinja").write_text(DB)
    prompts = chosen_prompts(settings("http://127.0.0.1:9", llm__context_file=str(tmp_path / "context.yaml")))
    async with AsyncExitStack() as stack:
        provider = await stack.enter_async_context(FakeProvider([verdict(summary="It is slow.")]))
        models = [a_model(name, provider.url) for name in PROVIDERS]
        watched = Watched(config(*models), prompt=prompts.render)
        worker = await stack.enter_async_context(watched.worker)
        await watched.reach(WorkerState.READY)
        for n, name in enumerate(PROVIDERS):
            assert (await worker.classifier(n).classify(ALERT)).summary == "It is slow."
            request = provider.requests[-1]
            # Anthropic and Gemini are told what to do beside the chat.
            told = {"system", "systemInstruction", "system_instruction"} & {*request.json}
            chat = "".join(str(request.json[key]) for key in told) + request.prompt
            places = [chat.index(text) for text in SAID]
            assert places == sorted(places), name
            turns = request.json.get("messages") or request.json["contents"]
            roles = [turn["role"] for turn in turns if turn["role"] != "system"]
            assert roles in (["user", "assistant", "user"], ["user", "model", "user"])
