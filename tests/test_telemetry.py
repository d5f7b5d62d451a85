import io
import json
import logging
import re
from pathlib import Path

import pytest
import structlog
from prometheus_client import CollectorRegistry, generate_latest

from proxy.telemetry import Metrics, configure_logging


def logged(form, level="info"):
    """Log a few things and return what came out."""
    out = io.StringIO()
    configure_logging(level, form, out)
    log = structlog.get_logger("test")
    log.debug("quiet")
    log.warning("loud", alertname="A b", count=2, nothing=None)
    logging.getLogger("aiohttp.server").info("theirs", extra={"port": 1})
    try:
        raise ValueError("why")
    except ValueError:
        log.exception("failed")
    return out.getvalue()


def test_logfmt_has_a_line_for_each_event():
    lines = logged("logfmt").splitlines()
    assert len(lines) == 3
    assert 'level=warning event=loud alertname="A b" count=2' in lines[0]
    assert lines[0].startswith("ts=20")
    assert "event=theirs port=1" in lines[1]
    assert r'in logged\n    raise ValueError("why")\nValueError"' in lines[2].replace(r"\"", '"')


def test_json_has_an_object_for_each_event():
    loud, theirs, failed = map(json.loads, logged("json").splitlines())
    assert (loud["event"], loud["alertname"], loud["count"], loud["level"]) == ("loud", "A b", 2, "warning")
    assert (theirs["event"], theirs["port"]) == ("theirs", 1)
    assert failed["exception"].endswith("\nValueError")


def test_console_is_for_people_and_has_no_colours_in_a_file():
    text = logged("console")
    assert "loud" in text
    assert "\x1b[" not in text


@pytest.mark.parametrize("form", ["logfmt", "json", "console"])
def test_a_traceback_says_where_and_neither_what_was_said_nor_what_was_there(form):
    out = io.StringIO()
    configure_logging("info", form, out)
    said, there = "x".join("ab"), "y".join("ab")  # not in the source, lines of which are shown

    def failing():
        raise KeyError(said, there)

    for log in (structlog.get_logger("test"), logging.getLogger("theirs")):
        try:
            try:
                failing()
            except KeyError as exc:
                raise TypeError(said) from exc
        except TypeError:
            log.exception("failed")
    text = out.getvalue()
    assert (text.count("in failing"), text.count("KeyError"), text.count("TypeError")) == (2, 4, 4)
    assert "axb" not in text
    assert "ayb" not in text


@pytest.mark.parametrize(("level", "events"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_the_level_bounds_what_is_logged(level, events):
    assert len(logged("json", level).splitlines()) == events


def test_every_metric_is_in_the_reference_and_no_other():
    registry = CollectorRegistry()
    Metrics(registry)
    names = {line.split()[2] for line in generate_latest(registry).decode().splitlines() if "# TYPE" in line}
    page = (Path(__file__).parents[1] / "docs" / "reference" / "admin-api.md").read_text()
    assert set(re.findall(r"^\| `(aiproxy_\w+)` \|", page, re.MULTILINE)) == names


def test_all_metrics_are_ours_and_two_sets_live_side_by_side():
    registries = [CollectorRegistry(), CollectorRegistry()]
    for registry in registries:
        Metrics(registry)
    names = [line.split()[2] for line in generate_latest(registries[0]).decode().splitlines() if "# TYPE" in line]
    assert names
    assert all(name.startswith("aiproxy_") for name in names)
    assert not [name for name in names if name.endswith("_created")]
