"""`pytest` runs these in an environment with the proxy and this package."""

from pathlib import Path

import pytest
from runbooks import Runbooks

from proxy.classifiers import CATEGORIES, SEVERITIES, Request, Setup, Undecided


@pytest.fixture
def runbooks(monkeypatch):
    monkeypatch.setenv("RUNBOOKS_FILE", str(Path(__file__).parents[1] / "runbooks.yaml"))
    return Runbooks(Setup("runbooks"))


def about(name, summary):
    return Request({"alertname": name}, {"summary": summary}, messages=(), seconds=30)


@pytest.mark.parametrize(
    ("name", "summary", "category"),
    [
        ("VolumeFillsUp", "Filesystem /srv has 4% space left", "storage"),
        ("StandbyLag", "The replica is 90 s behind its primary", "availability"),
        ("CertExpiry", "shop.example expires in 3 days", "security"),
        ("CheckoutSlow", "p99 latency of payment requests is 4 s", "performance"),
    ],
)
def test_it_finds_the_runbook(runbooks, name, summary, category):
    verdict = runbooks.classify(about(name, summary))
    assert verdict.category == category
    assert verdict.severity in SEVERITIES
    assert verdict.category in CATEGORIES


def test_an_alert_without_a_runbook_is_left_to_others(runbooks):
    with pytest.raises(Undecided):
        runbooks.classify(about("CoffeeMachineEmpty", "No beans"))
