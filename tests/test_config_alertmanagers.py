"""How many Alertmanagers there are, as the sources say it."""

import pytest
from configuring import load

pytestmark = pytest.mark.usefixtures("a_directory_of_its_own")


@pytest.mark.parametrize(
    ("text", "flags", "environ", "urls"),
    [
        pytest.param("alertmanager:\n  url: http://a:1/x/", (), {}, ["http://a:1/x"], id="one value in the file"),
        pytest.param("alertmanager:\n  url: ${AM}", (), {"AM": "dns+http://a"}, ["dns+http://a"], id="a variable"),
        pytest.param("alertmanager:\n  url: ${AM}", (), {}, ["http://127.0.0.1:9093"], id="a variable that is not set"),
        pytest.param("alertmanager:\n  url: [http://a, http://b]", (), {}, ["http://a", "http://b"], id="a list"),
        pytest.param(None, (), {"ALERTMANAGER_URL": "http://a,http://b"}, ["http://a", "http://b"], id="commas"),
        pytest.param(
            None,
            (("alertmanager.url", "http://a"), ("alertmanager.url", "dns+https://b")),
            {"ALERTMANAGER_URL": "http://c"},
            ["http://a", "dns+https://b"],
            id="a flag given twice",
        ),
    ],
)
def test_alertmanagers_are_one_or_several(text, flags, environ, urls):
    assert list(load(text, flags=flags, **environ).settings.alertmanager.url) == urls
