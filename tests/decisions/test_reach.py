"""Whether the store can be asked, and what asking costs when it cannot."""

import asyncio

import pytest
from simulated import Time
from structlog.testing import capture_logs

from proxy.decisions.reach import PATIENCE, QUARANTINE, Reach
from proxy.errors import StoreError, StoreTimeout


class Question:
    """Takes `seconds` of the test's clock each time; gives the scripted answers in turn, the last one for ever."""

    def __init__(self, time, *answers, seconds=0.2):
        self.time, self.answers, self.seconds = time, list(answers), seconds
        self.asked = 0

    async def __call__(self):
        self.asked += 1
        self.time.passes(seconds=self.seconds)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def errors():
    return []


@pytest.fixture
def reach(time, errors, monkeypatch):
    async def sleep(seconds):
        time.passes(seconds=seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return Reach(shared=True, on_error=lambda: errors.append(1), monotonic=lambda: time.monotonic)


async def test_an_answer_is_an_answer(reach, time, errors):
    assert await reach.ask(Question(time, {"a": 1}), 1) == {"a": 1}
    assert (reach.up, reach.trusted, reach.error, errors) == (True, True, "", [])


async def test_a_store_that_is_late_is_asked_again(reach, time, errors):
    question = Question(time, StoreTimeout("late"), StoreTimeout("late"), "answer")
    assert await reach.ask(question, 60) == "answer"
    assert (question.asked, len(errors), reach.up) == (3, 2, True)


async def test_its_patience_ends(reach, time, errors):
    question, begun = Question(time, StoreTimeout("late")), time.monotonic
    assert await reach.ask(question, 60) is None
    assert time.monotonic - begun <= PATIENCE + question.seconds + 0.01
    assert question.asked > 2
    assert (len(errors), reach.up, reach.error) == (question.asked, False, "late")


@pytest.mark.parametrize("within", [0.0, -1.0, 0.1])
async def test_who_has_no_time_asks_once(reach, time, within):
    question = Question(time, StoreTimeout("late"), "answer")
    assert await reach.ask(question, within) is None
    assert question.asked == 1


async def test_who_is_refused_does_not_ask_twice(reach, time, errors):
    question = Question(time, StoreError("refused"), "answer")
    assert await reach.ask(question, 60) is None
    assert (question.asked, len(errors), reach.error) == (1, 1, "refused")


async def test_away_costs_nothing(reach, time):
    reach.lost(StoreError("gone"))
    question, begun = Question(time, "answer"), time.monotonic
    assert await reach.ask(question, 60) is None
    assert (question.asked, time.monotonic) == (0, begun)


async def test_a_bug_is_no_answer_of_the_store(reach, time):
    with pytest.raises(ZeroDivisionError):
        await reach.ask(Question(time, ZeroDivisionError()), 1)
    assert reach.up


def test_a_store_that_came_back_is_asked_at_once_and_trusted_when_all_have_noticed(reach, time):
    reach.lost(StoreError("gone"))
    assert not reach.trusted
    reach.found()
    assert (reach.up, reach.error, reach.trusted) == (True, "", False)
    time.passes(seconds=QUARANTINE)
    assert not reach.trusted
    time.passes(seconds=0.1)
    assert reach.trusted


def test_a_store_that_was_never_away_is_trusted_all_the_while(reach, time):
    reach.found()
    assert reach.trusted


def test_going_and_coming_are_said_once(reach):
    with capture_logs() as logs:
        for _ in range(3):
            reach.lost(StoreError("gone"))
        for _ in range(3):
            reach.found()
    assert [(entry["log_level"], entry.get("error")) for entry in logs] == [("error", "gone"), ("info", None)]
