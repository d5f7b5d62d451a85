"""The limit of open files."""

import resource
import subprocess
import sys

import pytest
from structlog.testing import capture_logs

from proxy.app.files import OTHERS, warn_of_too_few

LOWER_AND_RAISE = """
import resource
from proxy.app.files import raise_file_limit
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 512))
print(raise_file_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_the_soft_limit_becomes_the_hard_one():
    found = subprocess.run([sys.executable, "-c", LOWER_AND_RAISE], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["512", "512", "512"]


@pytest.mark.parametrize(
    ("files", "warned"),
    [(3 * 100 + OTHERS, False), (3 * 100 + OTHERS - 1, True), (resource.RLIM_INFINITY, False)],
    ids=["as many as are needed", "one too few", "no limit"],
)
def test_connections_that_cannot_be_open_at_once_are_warned_of(files, warned):
    with capture_logs() as logs:
        warn_of_too_few(files, 100)
    assert [line["needed"] for line in logs] == ([364] if warned else [])
