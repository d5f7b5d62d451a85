"""examples/prompt-template: a reader does what its README says, and sees what it shows."""

from __future__ import annotations

import shutil
from pathlib import Path

import yaml
from guided import a_reader, blocks
from real import ROOT

EXAMPLE = ROOT / "examples" / "prompt-template"
BLOCKS = blocks(EXAMPLE / "README.md")
COMMANDS = [block for block in BLOCKS if block.language == "sh"]
SHOWN = [block.text for block in BLOCKS if not block.language]


async def test_the_commands_of_the_readme_print_what_it_shows(tmp_path):
    reader = a_reader(tmp_path, {})
    shutil.copytree(EXAMPLE, reader.home, dirs_exist_ok=True)
    check, render, plain = COMMANDS

    assert await reader.does(check) == "config.yaml: OK\n"

    said = await reader.does(render)
    shop, database, coffee = said.split("\n=== ")
    question, answer, own, system, theirs = SHOWN
    assert all(text in shop for text in (question, answer, own))
    assert shop.count("\n--- assistant\n") == 2
    assert shop.index(question) < shop.index(answer) < shop.rindex(own)
    assert shop.rindex("\n--- user\n") == shop.rindex(own) - 1
    assert system in database
    assert theirs in database
    assert "--- assistant" not in database + coffee
    assert "About " not in coffee
    assert "You classify alerts of a web shop for" in coffee

    without = await reader.does(plain)
    assert "--- assistant" not in without
    assert "About " not in without
    versions = {line.split()[1] for line in (said + without).splitlines() if line.startswith("prompt ")}
    assert len(versions) == 2


def test_the_readme_names_every_file_and_the_context_has_all_three_parts():
    readme = (EXAMPLE / "README.md").read_text()
    assert {path.name for path in EXAMPLE.iterdir()} - {"README.md"} == {
        name for name in ("shop.jinja", "context.yaml", "database.jinja", "config.yaml", "alerts.json")
        if f"({name})" in readme
    }  # fmt: skip
    context = yaml.safe_load(Path(EXAMPLE / "context.yaml").read_text())
    assert {*context} == {"services", "examples", "prompts"}
