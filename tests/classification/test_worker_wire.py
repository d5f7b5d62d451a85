"""Every provider's wire, plain and streamed, with every fault: the real LiteLLM in a real worker.

LiteLLM takes seconds to load, so two workers are shared, one that streams and one that does not. Each test asks models
that nothing is known about: what was learned about one must not leak into the next test.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest
import pytest_asyncio
from fake_provider import (
    Answer,
    Drip,
    Empty,
    FakeProvider,
    Hang,
    Html,
    Huge,
    Nothing,
    Pause,
    Request,
    Reset,
    ResetAfter,
    Status,
    Text,
    Zipped,
    verdict,
)
from workers import ALERT, PROVIDERS, SECRET, Pool

from proxy.alert import Alert
from proxy.classification.classification import Category, Classification, Confidence, Severity, Source
from proxy.classification.masking import Masking
from proxy.classification.prompts import Prompt
from proxy.classification.rendering import Rendering
from proxy.classification.usage import Usage
from proxy.classification.worker.configuration import WorkerState
from proxy.errors import (
    ClassifierInvalidAnswer,
    ClassifierRateLimited,
    ClassifierRejected,
    ClassifierTimeout,
    ClassifierUnavailable,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

WITH_TOOL = "anthropic/claude-3-haiku-20240307"
"""Of those that are made to answer by a tool call."""
LABELS = (Severity.WARNING, Category.CAPACITY, Confidence.HIGH)
GOOD = verdict().text
BARE = Classification(*LABELS, Source.LLM)
"""Labels and no text."""
WHOLE = replace(BARE, summary="The disk fills up.", recommendations=("Delete old files.",))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pools(far_end: FakeProvider) -> AsyncIterator[dict[bool, Pool]]:
    urls = dict.fromkeys([*PROVIDERS, WITH_TOOL], far_end.url)
    pools = {stream: Pool(urls, stream=stream, max_retries=1) for stream in (False, True)}
    with pytest.MonkeyPatch.context() as environ:
        environ.setenv("OLLAMA_API_BASE", far_end.url)  # where LiteLLM would look for an Ollama of this machine
        for pool in pools.values():
            pool.worker.start()
        await asyncio.gather(*(pool.watched.reach(WorkerState.READY) for pool in pools.values()))
    yield pools
    await asyncio.gather(*(pool.worker.close() for pool in pools.values()))


@pytest.fixture(params=[False, True], ids=["plain", "streamed"])
def pool(pools: dict[bool, Pool], request: pytest.FixtureRequest) -> Pool:
    pool = pools[request.param]
    pool.watched.usage.clear()
    return pool


@pytest.fixture
def plain(pools: dict[bool, Pool]) -> Pool:
    return pools[False]


@pytest.fixture
def streaming(pools: dict[bool, Pool]) -> Pool:
    return pools[True]


def hurry(pool: Pool, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr(pool.worker, "_config", replace(pool.worker._config, timeout=timedelta(seconds=seconds)))


@pytest.mark.parametrize("name", [*PROVIDERS, WITH_TOOL])
async def test_a_verdict_comes_through_every_provider(name: str, pool: Pool, provider: FakeProvider):
    provider.answers = [verdict(severity="critical", category="storage", confidence="high")]
    early: list[Classification] = []
    found = await pool.fresh(name).classify(ALERT, early.append)

    streamed = pool.worker._config.stream
    model, path = PROVIDERS.get(name, (name.partition("/")[2], "/v1/messages"))
    assert (found.severity, found.category, found.confidence) == (Severity.CRITICAL, Category.STORAGE, Confidence.HIGH)
    assert (found.source, found.model) == (Source.LLM, model)
    assert (found.summary, found.recommendations) == ("The disk fills up.", ("Delete old files.",))
    assert early == ([replace(found, summary="", recommendations=())] if streamed else [])
    (request,) = provider.requests
    assert provider.strays == []
    assert request.streamed is streamed
    assert request.path == (path.replace("generate", "streamGenerate") if streamed else path)
    assert request.key == SECRET
    assert "sda is 97% full" in request.prompt
    assert "300" in request.prompt  # max_tokens, whatever it is called here
    assert '"recommendations": {"type": "array"' in request.prompt  # the schema
    ((_, usage),) = pool.watched.usage
    assert (usage.requests, usage.prompt_tokens, usage.completion_tokens) == (1, 480, 90)


@dataclass(frozen=True)
class Fault:
    answer: Answer
    plain: type[Exception] | Classification
    """How the call ends when it is not streamed,"""
    asked: int
    """and after how many requests."""
    streamed: type[Exception] | Classification | None = None
    """None: like the plain one."""
    asked_streamed: int | None = None


FAULTS = {
    "a bad key": Fault(Status(401), ClassifierRejected, 1),
    "an unknown model": Fault(Status(404), ClassifierRejected, 1),
    "a failing server": Fault(Status(500, {"Retry-After": "0"}), ClassifierUnavailable, 2),
    "a full one": Fault(Status(429, {"Retry-After": "0"}), ClassifierRateLimited, 2),
    "a reset": Fault(Reset(), ClassifierUnavailable, 2),
    "a reset in the middle": Fault(ResetAfter(GOOD, "summary"), ClassifierUnavailable, 2, BARE, 2),
    "a page of HTML": Fault(Html(), ClassifierUnavailable, 2),
    "no body": Fault(Nothing(), ClassifierUnavailable, 2),
    "nothing said": Fault(Empty(), ClassifierInvalidAnswer, 2, ClassifierInvalidAnswer, 3),
    "prose": Fault(Text("The disk is full."), ClassifierInvalidAnswer, 2),
    "an unknown severity": Fault(verdict(severity="urgent"), ClassifierInvalidAnswer, 2),
    "a missing label": Fault(verdict(confidence=None), ClassifierInvalidAnswer, 2),
    "NaN": Fault(Text(GOOD.replace('"high"', "NaN")), ClassifierInvalidAnswer, 2),
    "a number without end": Fault(Text(GOOD.replace('"high"', "1234567890" * 500)), ClassifierInvalidAnswer, 2),
    "nesting without end": Fault(Text('{"a":' * 1200), ClassifierInvalidAnswer, 2),
    "an answer cut off before its labels": Fault(Text(GOOD[:30], cut_off=True), ClassifierInvalidAnswer, 2),
    "an answer cut off after its labels": Fault(Text(GOOD[: GOOD.index("disk")], cut_off=True), BARE, 1),
    "an answer compressed unasked": Fault(Zipped(GOOD), WHOLE, 1),
    "a redirect": Fault(Status(307, {"Location": "/elsewhere"}), ClassifierRejected, 1),
    "a redirect to itself": Fault(Status(302, {"Location": ""}), ClassifierRejected, 1),
    "a Retry-After of another age": Fault(
        Status(429, {"Retry-After": "Mon, 01 Jan 99999999999999 00:00:00 GMT"}), ClassifierRateLimited, 2
    ),
    "30 MiB": Fault(Huge(), ClassifierInvalidAnswer, 1, BARE, 1),
}


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_what_becomes_of_each_fault(name: str, fault: Fault, pool: Pool, provider: FakeProvider):
    provider.answers = [fault.answer]
    outcome, asked = fault.plain, fault.asked
    if pool.worker._config.stream:
        outcome, asked = fault.streamed or outcome, fault.asked_streamed or asked
    model = pool.fresh(name)
    if isinstance(outcome, Classification):
        assert await model.classify(ALERT) == replace(outcome, model=PROVIDERS[name][0])
    else:
        with pytest.raises(outcome) as failed:
            await model.classify(ALERT)
        assert SECRET not in repr(failed.value)
        assert "refused: key" not in repr(failed.value)  # words of the provider's message
    assert len(provider.requests) == asked
    assert provider.strays == []
    ((_, usage),) = pool.watched.usage
    assert usage.requests == asked
    if isinstance(fault.answer, Huge):
        async with asyncio.timeout(10):
            await provider.requests[0].hung_up.wait()


@pytest.mark.parametrize("name", PROVIDERS)
async def test_a_small_parcel_is_not_unpacked_beyond_the_bound(name: str, plain: Pool, provider: FakeProvider):
    provider.answers = [Zipped(verdict(summary=" " * 8 * 1024 * 1024).text)]
    with pytest.raises(ClassifierInvalidAnswer, match="without end"):
        await plain.fresh(name).classify(ALERT)
    assert len(provider.requests) == 1


@pytest.mark.parametrize("answer", [Hang(), Drip(GOOD, 0.05)], ids=["silence", "a dripping answer"])
async def test_the_deadline_bounds_the_whole_call_and_hangs_up(
    answer: Answer, pool: Pool, provider: FakeProvider, monkeypatch
):
    provider.answers = [answer]
    hurry(pool, monkeypatch, 1)
    pid = pool.worker.pid
    async with asyncio.timeout(20):
        ended = await asyncio.gather(*(pool.fresh(n).classify(ALERT) for n in PROVIDERS), return_exceptions=True)
        for error in ended:
            # The child's words: it did not hang.
            assert isinstance(error, ClassifierTimeout), error
            assert "no answer in time" in str(error)
        assert len(provider.requests) == len(PROVIDERS)
        for request in provider.requests:
            await request.hung_up.wait()
    assert pool.worker.pid == pid


@pytest.mark.parametrize("name", PROVIDERS)
async def test_cancel_reaches_the_provider(name: str, pool: Pool, provider: FakeProvider):
    provider.answers = [Pause(GOOD, "severity")]
    call = asyncio.create_task(pool.fresh(name).classify(ALERT))
    request = await provider.request(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    async with asyncio.timeout(5):
        await request.hung_up.wait()
        while not pool.watched.usage:
            await asyncio.sleep(0.01)
    assert [usage.requests for _, usage in pool.watched.usage] == [1], "what was asked until then has its price"


async def test_every_providers_retry_after_is_obeyed(pool: Pool, provider: FakeProvider, monkeypatch):
    times: dict[str, list[float]] = {}

    def at_first_full(request: Request) -> Answer:
        times.setdefault(request.path, []).append(request.at)
        return Status(429, {"Retry-After": "1"}) if len(times[request.path]) == 1 else verdict()

    provider.answers = at_first_full
    await asyncio.gather(*(pool.fresh(name).classify(ALERT) for name in PROVIDERS))
    assert len(times) == len(PROVIDERS)
    for first, second in times.values():
        assert second - first >= 1


@pytest.mark.parametrize("name", PROVIDERS)
async def test_a_retry_after_beyond_the_deadline_is_given_up_at_once(name: str, pool: Pool, provider: FakeProvider):
    provider.answers = [Status(429, {"Retry-After": "3600"}), verdict()]
    async with asyncio.timeout(10):
        with pytest.raises(ClassifierRateLimited):
            await pool.fresh(name).classify(ALERT)
    assert len(provider.requests) == 1


# The ladder of forms


def form(request: Request) -> str:
    """The form that was asked for, in OpenAI's words."""
    asked = request.json
    if "response_format" in asked:
        return asked["response_format"]["type"]
    if asked.get("format") == "json":
        return "json_object"
    if "format" in asked or "output_format" in asked:
        return "json_schema"
    generation = asked.get("generationConfig", {})
    if "response_json_schema" in generation:
        return "json_schema"
    return "json_object" if generation.get("response_mime_type") == "application/json" else "text"


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize("kept", ["json_object", "text"])
async def test_a_refused_form_leads_to_a_less_strict_one_at_once_and_for_good(
    name: str, kept: str, pool: Pool, provider: FakeProvider
):
    steps = ["json_schema", "json_object", "text"] if name != "anthropic" else ["json_schema", "text"]
    if kept not in steps:
        kept = "text"
    refused = steps[: steps.index(kept)]
    provider.answers = lambda request: Status(400) if form(request) in refused else verdict()
    model = pool.fresh(name)
    await model.classify(ALERT)
    await model.classify(ALERT)
    assert [form(request) for request in provider.requests] == [*refused, kept, kept]


@pytest.mark.parametrize("name", PROVIDERS)
async def test_a_request_refused_in_every_form_is_rejected(name: str, pool: Pool, provider: FakeProvider):
    provider.answers = [Status(400)]
    with pytest.raises(ClassifierRejected):
        await pool.fresh(name).classify(ALERT)
    assert len(provider.requests) == (2 if name == "anthropic" else 3)


# Labels before text


@pytest.mark.parametrize("name", [*PROVIDERS, WITH_TOOL])
async def test_labels_are_told_while_the_text_is_still_missing(name: str, streaming: Pool, provider: FakeProvider):
    pause = Pause(GOOD, "summary")
    provider.answers = [pause]
    told: asyncio.Future[Classification] = asyncio.get_running_loop().create_future()
    call = asyncio.create_task(streaming.fresh(name).classify(ALERT, told.set_result))
    early = await asyncio.wait_for(told, 10)
    assert (early.severity, early.category, early.confidence, early.summary) == (*LABELS, "")
    assert not call.done()
    pause.release.set()
    whole = await call
    assert whole == replace(early, summary="The disk fills up.", recommendations=("Delete old files.",))
    assert len(provider.requests) == 1


async def test_labels_that_were_told_hold_at_the_deadline(streaming: Pool, provider: FakeProvider, monkeypatch):
    provider.answers = [Pause(GOOD, "summary")]
    hurry(streaming, monkeypatch, 1)
    assert await streaming.fresh("openai").classify(ALERT) == replace(BARE, model="gpt-4o")
    async with asyncio.timeout(5):
        await provider.requests[0].hung_up.wait()


async def test_a_stream_that_breaks_is_asked_for_whole(streaming: Pool, provider: FakeProvider):
    provider.answers = [ResetAfter(GOOD, "summary"), verdict(), verdict()]
    model = streaming.fresh("openai")
    assert (await model.classify(ALERT)).summary == "The disk fills up."
    assert [request.streamed for request in provider.requests] == [True, False]
    await model.classify(ALERT)
    assert provider.requests[2].streamed


@pytest.mark.parametrize("name", PROVIDERS)
async def test_streams_that_cannot_be_read_are_given_up(name: str, streaming: Pool, provider: FakeProvider):
    provider.answers = lambda request: Html() if request.streamed else verdict()
    model = streaming.fresh(name)
    for _ in range(3):
        assert (await model.classify(ALERT)).severity is Severity.WARNING
    assert [request.streamed for request in provider.requests] == [True, False, True, False, False]


# What it costs


async def test_what_a_call_took_is_summed_and_priced(plain: Pool, provider: FakeProvider):
    provider.answers = [Text("The disk is full."), verdict()]
    plain.watched.usage.clear()
    await plain.fresh("openai").classify(ALERT)
    ((model, usage),) = plain.watched.usage
    assert plain.worker._config.models[model].provider == "openai"
    # gpt-4o: 2.50 and 10 dollars a million.
    assert usage == Usage(2, 960, 180, pytest.approx(960 * 2.5e-6 + 180 * 1e-5))


@pytest.mark.parametrize("name", ["openai", "anthropic"])
async def test_what_a_provider_does_not_count_is_not_guessed(name: str, pool: Pool, provider: FakeProvider):
    provider.answers = [Text(GOOD, counted=False)]
    await pool.fresh(name).classify(ALERT)
    assert [usage for _, usage in pool.watched.usage] == [Usage(1, None, None, None)]


async def test_a_model_of_ones_own_is_free(pool: Pool, provider: FakeProvider):
    await pool.fresh("ollama").classify(ALERT)
    assert [usage for _, usage in pool.watched.usage] == [Usage(1, 480, 90, 0)]


# What leaves, and what comes back


async def test_what_leaves_is_masked_and_what_comes_back_is_in_words(plain: Pool, provider: FakeProvider):
    alert = Alert({"alertname": "A", "cluster": "10.1.1.1", "instance": "10.0.0.7:1", "token": "hunter22"})
    provider.answers = [verdict(summary="IP_1 lost IP_2:1", recommendations=["Renew SECRET_1"])]
    found = await plain.fresh("openai").classify(alert)
    assert (found.summary, found.recommendations) == ("10.1.1.1 lost an IP address", ("Renew [masked]",))
    assert not re.search("hunter22|10[.][01][.]", provider.requests[0].prompt)


async def test_a_prompt_beyond_all_bounds_is_refused(plain: Pool, provider: FakeProvider, monkeypatch):
    too_long = Prompt([{"role": "user", "content": "x" * 2_000_000}], Masking().mask([]))
    monkeypatch.setattr(plain.worker, "_rendered", Rendering(lambda _: too_long))
    with pytest.raises(ClassifierRejected, match="too long"):
        await plain.fresh("openai").classify(ALERT)
    assert provider.requests == []
