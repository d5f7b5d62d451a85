"""Each amtool there is, what it can do by its own words, and dialogues with it that can be compared."""

from __future__ import annotations

import asyncio
import re
import shlex
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from string import Template

from real import ROOT

WITHIN = 30.0
"""Seconds that one command may take."""
OUTPUTS = ("simple", "extended", "json")


def amtools() -> list[str]:
    """Every amtool there is: the one on PATH (Debian's) and the one that `make tools` builds."""
    built = ROOT / ".tools" / "bin" / "amtool"
    return [path for path in (shutil.which("amtool"), str(built) if built.exists() else None) if path]


def of_the_same_version(alertmanager: str) -> str:
    """Return the amtool that came with an Alertmanager, or one that is there."""
    return next((tool for tool in amtools() if Path(tool).parent == Path(alertmanager).parent), amtools()[0])


@cache
def abilities(amtool: str) -> dict[str, frozenset[str]]:
    """Return the commands of an amtool, each with its flags; those of every command are at ""."""
    told = subprocess.run([amtool, "--help-long"], capture_output=True, text=True, timeout=WITHIN, check=True)
    # kingpin tells on stdout or stderr, by its version.
    found: dict[str, set[str]] = defaultdict(set)
    command = ""
    for line in (told.stdout + told.stderr).splitlines():
        if "" in found and (heading := re.match(r"[a-z][a-z-]*( [a-z-]+)*(?= |$)", line)):
            command = heading[0]
            found[command] = set()
        elif flag := re.match(r" +(?:-\w, +)?--(?:\[no-\])?([a-z][a-z.-]*[a-z])(?=[ =]|$)", line):
            found[command].add(flag[1])
        if line == "Commands:":
            found.setdefault("", set())
    return {command: frozenset(flags) for command, flags in found.items()}


@dataclass(frozen=True, slots=True)
class Done:
    """What a command did."""

    exit_code: int
    stdout: str
    stderr: str


@dataclass
class Terminal:
    """Where a person has typed `amtool` and its address, and types on.

    A line is written as for a shell: quotes, `< FILE` and `> FILE` at its end. `$name` stands for `given[name]`,
    `$dir` for a directory of its own, and `$silence` for the silence made last.
    """

    amtool: str
    flags: list[str]
    """Of every command: where Alertmanager is, and how to come in."""
    directory: Path
    given: dict[str, str] = field(default_factory=dict)
    _silences: dict[str, str] = field(default_factory=dict)
    """The ids of silences, and what is written for them."""

    async def type(self, line: str) -> Done:
        """Run a line."""
        done, target = await self._run(line)
        if target:
            target.write_text(done.stdout)
        return done

    async def look(self, line: str) -> Done:
        """Run a line that changes nothing, and leave the files as they are."""
        done, _ = await self._run(line)
        return done

    async def _run(self, line: str) -> tuple[Done, Path | None]:
        """Return what a line did, and the file that it asks for."""
        words = shlex.split(Template(line).safe_substitute(self.given, dir=self.directory, silence=self._last))
        source, target = self._redirected(words, "<"), self._redirected(words, ">")
        process = await asyncio.create_subprocess_exec(
            *(self.amtool, *self.flags, *words),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(WITHIN):
            out, err = await process.communicate(source.read_bytes() if source else b"")
        assert process.returncode is not None
        return Done(process.returncode, *(POINTER.sub("POINTER", told.decode()) for told in (out, err))), target

    def comparable(self, done: Done) -> Done:
        """Return what a command did without what differs by time, by address and by chance."""
        return Done(done.exit_code, self._comparable(done.stdout), self._comparable(done.stderr))

    @property
    def _last(self) -> str:
        return next(reversed(self._silences), "")

    def _redirected(self, words: list[str], sign: str) -> Path | None:
        if sign not in words:
            return None
        at = words.index(sign)
        _, name = words[at], words[at + 1]
        del words[at : at + 2]
        return self.directory / name

    def _comparable(self, text: str) -> str:
        for pattern, instead in CHANCE:
            text = pattern.sub(instead, text)
        return SILENCE.sub(self._named, text.replace(str(self.directory), "DIRECTORY"))

    def _named(self, found: re.Match[str]) -> str:
        if found[0] == NOWHERE:
            return NOWHERE
        return self._silences.setdefault(found[0], f"SILENCE-{len(self._silences)}")


NOWHERE = "00000000-0000-4000-8000-000000000000"
"""The id of a silence that is not there."""
SILENCE = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
CHANCE = (
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z| UTC)"), "TIME"),
    (re.compile(r"\w+://127\.0\.0\.1:\d+"), "URL"),
    (re.compile(r"127\.0\.0\.1:\d+"), "ADDRESS"),
    (re.compile(r"\b[0-9A-HJKMNP-TV-Z]{26}\b"), "PEER"),
)
"""Times, addresses, and the name that an Alertmanager gives itself in its cluster."""
POINTER = re.compile(r"\b0x[0-9a-f]{8,}\b")
"""Where amtool has something in its memory: it prints that for a silence's id and for the parts of a version."""


def used(lines: Iterable[str], among: dict[str, frozenset[str]]) -> dict[str, set[str]]:
    """Return the commands that are used, each with its flags."""
    found: dict[str, set[str]] = defaultdict(set)
    for line in lines:
        words = shlex.split(line)
        command = command_of(line, among)
        for flag in (word[2:].partition("=")[0].removeprefix("no-") for word in words if word.startswith("--")):
            found[command if flag in among[command] else ""].add(flag)
        found[command] |= set()
    return found


def command_of(line: str, among: dict[str, frozenset[str]]) -> str:
    """Return the longest command that a line begins with."""
    return max((name for name in among if f"{line} ".startswith(f"{name} ")), key=len, default="")
