"""examples/custom-llm-classifier: a reader installs the package and does what its README says.

pip is the real one. It is told by its environment what differs here: no network, and a directory of the test's own in
the place of the environment that the proxy is in.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from guided import Block, Reader, a_reader, blocks, put
from real import ROOT, get

EXAMPLE = ROOT / "examples" / "custom-llm-classifier"
BLOCKS = [block for block in blocks(EXAMPLE / "README.md") if block.language == "sh"]
SHOWN = [block for block in blocks(EXAMPLE / "README.md") if not block.language]


def under(number: str) -> list[Block]:
    return [block for block in BLOCKS if block.heading.startswith(number)]


def a_reader_of_a_fresh_clone(directory: Path) -> Reader:
    installed = directory / "installed"
    reader = a_reader(
        directory,
        {
            "PYTHONPATH": f"{ROOT}:{installed}",
            "PIP_TARGET": str(installed),
            "PIP_NO_INDEX": "1",
            "PIP_NO_BUILD_ISOLATION": "0",  # so pip spells yes: the build tools that are here
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        },
    )
    for name in ("python", "pip"):
        put(directory / "bin" / name, f'exec "{sys.executable}" {"-m pip " if name == "pip" else ""}"$@"')
    # pytest looks there as well, and finds what it cannot do: the clone's own settings.
    (directory / "pyproject.toml").write_text("[tool.pytest.ini_options]\naddopts = ['--not-an-option']\n")
    shutil.copytree(EXAMPLE, reader.home, dirs_exist_ok=True)
    config = reader.home / "config.yaml"
    config.write_text(reader.here(config.read_text()))
    return reader


async def test_the_readme_leads_to_an_alert_routed_by_ones_own_classifier(tmp_path):
    reader = a_reader_of_a_fresh_clone(tmp_path)
    async with AsyncExitStack() as stack:
        for block in under("1."):
            await reader.does(block)
        tried, tests = under("2.")
        said = await reader.does(tried)
        assert SHOWN[0].text in said
        assert "NO VERDICT: undecided: Undecided;" in said
        assert "Undecided: the best is 0.00 alike" in said
        await reader.does(Block(tests.heading, "sh", tests.text.replace("python -m pip install pytest\n", "")))

        alertmanager, proxy = under("3.")
        await stack.enter_async_context(reader.leaves_running(alertmanager, f"{reader.url('9093')}/-/ready"))
        await stack.enter_async_context(reader.leaves_running(proxy, f"{reader.url('19094')}/-/ready"))
        status, send = under("4.")
        async with asyncio.timeout(30):
            while "classifier/runbooks is ready" not in await reader.does(status):
                await asyncio.sleep(0.1)
        shown = await reader.does(send)
        assert "A standby does not follow, so a failover would lose orders." in shown
        held = {one["labels"]["alertname"]: one for one in await get(f"{reader.url('9093')}/api/v2/alerts")}

    standby, volume, coffee = (held[name] for name in ("StandbyLag", "VolumeFillsUp", "CoffeeMachineEmpty"))
    assert (standby["labels"]["ai_severity"], standby["labels"]["ai_category"]) == ("critical", "availability")
    assert [receiver["name"] for receiver in standby["receivers"]] == ["pager"]
    assert standby["annotations"]["ai_model"] == "runbooks"
    assert (volume["labels"]["ai_severity"], volume["labels"]["ai_category"]) == ("critical", "storage")
    assert (coffee["labels"]["ai_severity"], coffee["annotations"]["ai_source"]) == ("info", "rules")
    assert not {str(block) for block in BLOCKS} - {str(block) for block in reader.done} - {str(tests)}


def test_the_classifier_is_as_long_as_the_readme_says():
    lines = (EXAMPLE / "src" / "runbooks" / "__init__.py").read_text().splitlines()
    assert 55 <= len(lines) <= 65
