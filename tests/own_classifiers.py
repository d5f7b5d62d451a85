"""Classifiers of a user's own, installed for the child processes of a test as pip would do it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SECRET_WORDS = "the-classifier-says-hunter2"
"""Prints and exceptions carry them; nothing of the proxy's does."""

ROGUE = f'''
"""Does what the name of the alert says."""
import asyncio, collections, json, os, pathlib, sys, time
from proxy.classifiers import RateLimited, Rejected, Unavailable, Undecided, Verdict

WORDS = {SECRET_WORDS!r}
GOOD = Verdict("info", "network", "high", "The classifier says so.", ["Look."])
MEMBERS = {{"severity": "info", "category": "network", "confidence": "high"}}


class Base(BaseException):
    pass


class Rogue:
    def __init__(self, setup):
        self.setup, self.asked = setup, collections.Counter()

    async def classify(self, request):
        self.asked[request.labels["alertname"]] += 1
        return await getattr(self, request.labels["alertname"])(request)

    async def Good(self, request): return GOOD
    async def Mapping(self, request): return {{**MEMBERS, "recommendations": ("One.", "Two."), "more": object()}}
    async def Text(self, request): return 'Well: {{"severity": "info", "category": "network", "confidence": "high"}}'
    async def TenMegabytesInTheSummary(self, request): return Verdict(**MEMBERS, summary="x" * 10_000_000)
    async def ManySteps(self, request): return Verdict(**MEMBERS, recommendations=["Look at <b>it</b>."] * 5_000_000)
    async def PrintsSecrets(self, request):
        os.write(1, WORDS.encode()), os.write(2, WORDS.encode())
        print(WORDS, flush=True)
        print(WORDS, file=sys.stderr, flush=True)
        return GOOD
    async def HugeUsage(self, request):
        return Verdict(**MEMBERS, input_tokens=10**400, output_tokens=-1, cost_usd=float("nan"))
    async def Echoes(self, request): return Verdict(**MEMBERS, summary=f"See {{request.labels['peer']}}.")
    async def Counted(self, request):
        return Verdict(**MEMBERS, input_tokens=700, output_tokens=90, cost_usd=0.25)
    async def AwayOnce(self, request): return self.after(ConnectionError(WORDS), request)
    async def LateOnce(self, request): return self.after(TimeoutError(WORDS), request)
    async def UnavailableOnce(self, request): return self.after(Unavailable(WORDS), request)
    async def LimitedOnce(self, request): return self.after(RateLimited(retry_after=0.1), request)
    async def LimitedForLong(self, request): return self.after(RateLimited(retry_after=3600), request)
    async def LimitedForNonsense(self, request): return self.after(RateLimited(retry_after="soon"), request)
    def after(self, error, request):
        if self.asked[request.labels["alertname"]] == 1:
            raise error
        return GOOD
    async def TextTwice(self, request):
        said = request.messages[-1]["content"]
        return json.dumps(MEMBERS) if "not the JSON object" in said else "I think it is the network."
    async def Told(self, request):
        told = {{
            "labels": request.labels, "annotations": request.annotations, "messages": request.messages,
            "seconds": request.seconds, "repr": repr(request) + repr(self.setup),
            "setup": [self.setup.name, self.setup.model, self.setup.api_key, self.setup.base_url],
            "litellm": "litellm" in sys.modules, "key": [n for n, v in os.environ.items() if v == self.setup.api_key],
        }}
        pathlib.Path(__file__).with_name("told.json").write_text(json.dumps(told))
        return GOOD
    async def aclose(self):
        pathlib.Path(__file__).with_name("closed").touch()

    async def Raises(self, request): raise KeyError(WORDS)
    async def RaisesBase(self, request): raise Base(WORDS)
    async def Exit(self, request): sys.exit(WORDS)
    async def Interrupt(self, request): raise KeyboardInterrupt
    async def Cancelled(self, request): raise asyncio.CancelledError
    async def Stop(self, request): raise GeneratorExit
    async def Memory(self, request): raise MemoryError
    async def HugeName(self, request): raise type("N" * 2_000_000, (Exception,), {{}})
    async def Group(self, request): raise BaseExceptionGroup(WORDS, [Base()])
    async def Refuses(self, request): raise Rejected(WORDS)
    async def HasNothingToSay(self, request): raise Undecided(WORDS)
    async def Nothing(self, request): return None
    async def Bytes(self, request): return b"critical"
    async def WrongSeverity(self, request): return MEMBERS | {{"severity": "urgent"}}
    async def Nan(self, request): return MEMBERS | {{"confidence": float("nan")}}
    async def NoCategory(self, request): return {{"severity": "info", "confidence": "high"}}
    async def TenMegabytes(self, request): return "x" * 10_000_000
    async def Nested(self, request):
        deep = []
        for _ in range(100_000):
            deep = [deep]
        return MEMBERS | {{"severity": deep}}
    async def Generator(self, request): return (n for n in range(3))
    async def BadMapping(self, request):
        class Bad(dict):
            def get(self, name): raise RuntimeError(WORDS)
        return Bad(MEMBERS)
    async def Hangs(self, request): await asyncio.sleep(3600)

    async def BlocksTheLoop(self, request): time.sleep(3600)
    async def IgnoresCancellation(self, request):
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                pass
    async def BlocksWithAHelper(self, request):
        helper = os.fork()
        if helper:
            pathlib.Path(__file__).with_name("helper").write_text(str(helper))
        time.sleep(3600)
    async def Leaves(self, request): os._exit(3)
    async def LeavesAnotherBehind(self, request):
        if os.fork() == 0:
            time.sleep(10)  # with all that the worker has open
            os._exit(0)
        os._exit(3)


class InAThread(Rogue):
    """The same, without async."""
    def classify(self, request):
        self.asked[request.labels["alertname"]] += 1
        if request.labels["alertname"] == "Iterates":
            raise StopIteration(WORDS)
        coroutine = getattr(self, request.labels["alertname"])(request)
        try:
            coroutine.send(None)
        except StopIteration as done:
            return done.value
        finally:
            coroutine.close()

    async def Hangs(self, request): time.sleep(3600)
    async def TakesLonger(self, request):
        time.sleep(request.seconds + 0.3)
        return GOOD


class WithoutClassify:
    def __init__(self, setup): pass


class Trap:
    def __init__(self, setup): pass
    @property
    def classify(self): raise RuntimeError(WORDS)


class Broken:
    def __init__(self, setup): raise OSError(WORDS)


class Leaver:
    def __init__(self, setup): sys.exit(WORDS)
'''
LITELLMS = f"""
import os
import litellm
from litellm.llms.custom_llm import CustomLLM, CustomLLMError

REST = {{"index": 0, "tool_use": None, "usage": None}}
FETCHED = os.environ.get("LITELLM_LOCAL_MODEL_COST_MAP") != "True"
TEXT = '{{"severity": "info", "category": "network", "confidence": "high", "summary": "%s"}}'


class Plain(CustomLLM):
    async def acompletion(self, model, messages, api_base, model_response, api_key, optional_params, **_):
        asked = str(messages)
        if "Fails429" in asked:
            raise CustomLLMError(429, {SECRET_WORDS!r})
        if "Fails401" in asked:
            raise CustomLLMError(401, {SECRET_WORDS!r})
        if "Raises" in asked:
            raise KeyError({SECRET_WORDS!r})
        if "Exit" in asked:
            raise SystemExit({SECRET_WORDS!r})
        said = f"{{model}} {{api_base}} {{api_key}} {{FETCHED}}"
        model_response.choices[0].message.content = "nonsense" if "Nonsense" in asked else TEXT % said
        model_response.usage = litellm.Usage(prompt_tokens=700, completion_tokens=90, total_tokens=790)
        return model_response


class Streams(Plain):
    async def astreaming(self, model, messages, **_):
        said = TEXT % "streamed"
        for piece in (said[:40], said[40:80], said[80:]):
            yield {{"text": piece, "is_finished": False, "finish_reason": None, **REST}}
        yield {{"text": "", "is_finished": True, "finish_reason": "stop", **REST}}


class Synchronous(CustomLLM):
    def completion(self, *_, **__):
        raise AssertionError


handler = Plain()
"""

POINTS = {
    "rogue": "rogue:Rogue",
    "thread": "rogue:InAThread",
    "twice": "rogue:Rogue",
    "silent": "rogue:WithoutClassify",
    "broken": "rogue:Broken",
    "trap": "rogue:Trap",
    "leaver": "rogue:Leaver",
    "absent": "rogue:NoSuchThing",
    "unimportable": "no_such_module:X",
}


def install(directory: Path, source: str, points: dict[str, str], module: str = "rogue") -> None:
    """Put a distribution into `directory`: the module, and its entry points."""
    directory.mkdir(exist_ok=True)
    (directory / f"{module}.py").write_text(source)
    info = directory / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    lines = "".join(f"{name} = {value}\n" for name, value in points.items())
    (info / "entry_points.txt").write_text(f"[alertmanager_ai_proxy.classifiers]\n{lines}")


def on_path(monkeypatch: pytest.MonkeyPatch, *directories: Path) -> None:
    """Let child processes find what is installed in these."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, directories)))
