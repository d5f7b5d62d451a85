"""What real Alertmanagers say of files for listeners: the proxy takes and refuses the same ones, but for a few."""

from __future__ import annotations

import asyncio
import re
import subprocess
from pathlib import Path

from ports import free_port
from web_configs import EXAMPLES, Example, certificates

CONFIG = "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n"
AT_ONCE = 4


async def starts(binary: str, example: Example, directory: Path) -> tuple[bool, str]:
    """Return whether Alertmanager listens with that file, and what it said."""
    home = directory / f"of-{example}"
    program = await asyncio.create_subprocess_exec(
        binary, f"--config.file={directory / 'am.yml'}", f"--storage.path={home}", "--cluster.listen-address=",
        f"--web.listen-address=127.0.0.1:{free_port()}", f"--web.config.file={example.put(directory)}",
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    assert program.stderr is not None
    said = ""
    try:
        async with asyncio.timeout(60):
            while line := (await program.stderr.readline()).decode():
                said += line
                if re.search(r'msg="?TLS is (enabled|disabled)', line):
                    return True, said
        return False, said
    finally:
        if program.returncode is None:
            program.kill()
        await program.wait()


def version(binary: str) -> tuple[int, ...]:
    said = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True, timeout=30)
    found = re.search(r"version (\d+)\.(\d+)", said.stdout + said.stderr)
    return (int(found[1]), int(found[2])) if found else (1,)  # `make tools` builds a current one, which has no number


async def test_alertmanager_takes_what_is_good_and_refused_and_nothing_that_is_bad(am_binary: str, tmp_path: Path):
    certificates(tmp_path)
    (tmp_path / "am.yml").write_text(CONFIG)
    turn, running = asyncio.Semaphore(AT_ONCE), version(am_binary)

    async def differs(example: Example) -> str:
        async with turn:
            taken, said = await starts(am_binary, example, tmp_path)
        return "" if taken is (example.kind != "bad") else f"{example}: {'taken' if taken else said}"

    asked = [example for example in EXAMPLES if example.since <= running]
    assert len(asked) > 40
    assert not [one for one in await asyncio.gather(*map(differs, asked)) if one]
