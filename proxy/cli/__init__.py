"""The command line. Bare flags mean `serve`.

Exit 0: fine; 1: the check or the work failed; 2: wrong usage.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from proxy import __version__, config
from proxy.cli import classifying, probing, rendering, running, trying
from proxy.errors import ConfigError

PROGRAM: Final = "alertmanager-ai-proxy"
_KEY_PREFIX: Final = "setting:"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv` (default: the process's arguments) names; return the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or (words[0].startswith("-") and words[0] not in {"-h", "--help", "--version"}):
        words.insert(0, "serve")
    arguments = _parser().parse_args(words)
    try:
        status = int(arguments.run(arguments))
        sys.stdout.flush()
    except ConfigError as exc:
        for problem in exc.problems:
            print(problem, file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Whoever read this has seen enough, as `head` does; Python would complain once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="A transparent proxy in front of Alertmanager that adds AI labels and annotations to alerts.",
        epilog=f"Without a command: serve. `{PROGRAM} serve --help` lists the settings.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="run the proxy (the default)", allow_abbrev=False)
    serve.set_defaults(run=_serve)
    serve.add_argument("--version", action="version", version=_version())
    serve.add_argument("--config.file", dest="file", type=Path, metavar="FILE", help="settings in YAML")
    _add_settings(serve)

    check = commands.add_parser("check-config", help="check a settings file and leave", allow_abbrev=False)
    check.set_defaults(run=_check_config, usage=check.error)
    check.add_argument("file", type=Path, nargs="?", metavar="FILE")
    check.add_argument("--rules", type=Path, metavar="FILE", help="check a table of rules, with or without settings")
    check.add_argument("--probe", action="store_true", help=probing.ABOUT)
    check.add_argument(
        "-o",
        "--output",
        choices=["text", "json"],
        default="text",
        help="json: print all settings, or what --probe finds",
    )

    classify = classifying.add_command(commands)
    classify.set_defaults(run=_classify)
    _add_settings(classify, "llm.")
    _add_settings(classify, "rules.")

    prompt = rendering.add_command(commands)
    prompt.set_defaults(run=_render_prompt)
    _add_settings(prompt, "llm.")

    trial = trying.add_command(commands)
    trial.set_defaults(run=_try_classifier)
    _add_settings(trial, "llm.")

    running.add_commands(commands)

    demo = commands.add_parser(
        "demo", help="run Prometheus, the proxy and Alertmanager, and watch alerts being routed", allow_abbrev=False
    )
    demo.set_defaults(run=_demo)
    demo.add_argument("--once", action="store_true", help="end by itself; exit 0 when an AI label routed an alert")
    demo.add_argument("--model", choices=["local"], help="local: start a small model on this machine")

    version = commands.add_parser("version", help="print the version", allow_abbrev=False)
    version.set_defaults(run=_print_version)
    return parser


def _add_settings(parser: argparse.ArgumentParser, prefix: str = "") -> None:
    """Add the flags of all settings whose key begins with `prefix`."""
    for flag in config.flags():
        if not flag.key.startswith(prefix):
            continue
        default = f" (default: {flag.default})" if flag.default else ""
        setting = parser.add_argument(
            flag.name,
            dest=_KEY_PREFIX + flag.key,
            action="append",
            metavar=flag.metavar,
            help=argparse.SUPPRESS if flag.is_secret else (flag.help + default).replace("%", "%%"),
        )
        if flag.is_bool or flag.is_secret:
            setting.nargs, setting.const = "?", "true" if flag.is_bool else ""


def _given(arguments: argparse.Namespace) -> Mapping[str, Sequence[str]]:
    """Return the values of the flags of settings, by key."""
    return {
        name.removeprefix(_KEY_PREFIX): values
        for name, values in vars(arguments).items()
        if name.startswith(_KEY_PREFIX) and values is not None
    }


def _load(file: Path | None, flags: Mapping[str, Sequence[str]] = {}) -> config.Loaded:
    """Return the settings that hold. Raises ConfigError, also for the files of prompts they name."""
    loaded = config.load(file, environ=os.environ, flags=flags)
    if loaded.settings.llm.prompt_file or loaded.settings.llm.context_file:
        from proxy.app import chosen_prompts  # late: nothing else here needs it

        loaded = replace(loaded, warnings=(*loaded.warnings, *chosen_prompts(loaded.settings).doubts()))
    if loaded.settings.llm.budget.usd_per_day:
        from proxy.app import unpriced  # late, as above

        loaded = replace(loaded, warnings=(*loaded.warnings, *unpriced(loaded.settings)))
    return loaded


def _serve(arguments: argparse.Namespace) -> int:
    def load() -> config.Loaded:
        return _load(arguments.file, _given(arguments))

    loaded = load()

    import asyncio  # late, as all that follows: the other commands need no log and no web server

    import structlog

    from proxy import app
    from proxy.telemetry import configure_logging

    app.chosen_rules(loaded.settings)  # a mistake in them is told as the others are, not in the midst of a start
    configure_logging(loaded.settings.log.level, loaded.settings.log.format)
    log = structlog.get_logger(__name__)
    for warning in loaded.warnings:
        log.warning("configuration", problem=warning)

    try:
        with asyncio.Runner(loop_factory=app.Loop) as runner:
            runner.run(app.serve(loaded.settings, load))
    except OSError as exc:
        log.error("cannot start", error=exc.strerror or str(exc))
        return 1
    return 0


def _check_config(arguments: argparse.Namespace) -> int:
    from proxy.app.access import chosen_access  # late: commands that ask a running proxy need none of it
    from proxy.app.doors import chosen_doors
    from proxy.app.model import doubts

    if arguments.file is None and not arguments.probe:
        if arguments.rules is None:
            arguments.usage("want the FILE of settings, or --rules FILE")
        return classifying.check_file(arguments.rules, quiet=arguments.output == "json")
    loaded = _load(arguments.file)
    for warning in (*loaded.warnings, *doubts(loaded.settings, os.environ)):
        print(f"warning: {warning}", file=sys.stderr)
    chosen_access(loaded.settings)
    chosen_doors(loaded.settings)
    tables = [path for path in (loaded.settings.rules.file, arguments.rules) if path is not None]
    # Each of them is checked, also behind one that is wrong.
    if sum(classifying.check_file(path, quiet=arguments.output == "json") for path in tables):
        return 1
    if arguments.probe:
        return probing.run(loaded.settings, arguments.output)
    if arguments.output == "json":
        print(json.dumps(config.masked(loaded.settings), indent=2))
    else:
        print(f"{arguments.file}: OK")
    return 0


def _render_prompt(arguments: argparse.Namespace) -> int:
    loaded = config.load(arguments.file, environ=os.environ, flags=_given(arguments))
    for warning in loaded.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return rendering.run(arguments.body, arguments.output, loaded.settings)


def _try_classifier(arguments: argparse.Namespace) -> int:
    loaded = config.load(arguments.file, environ=os.environ, flags=_given(arguments))
    for warning in loaded.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return trying.run(arguments.body, loaded.settings)


def _classify(arguments: argparse.Namespace) -> int:
    loaded = config.load(arguments.file, environ=os.environ, flags=_given(arguments))
    for warning in loaded.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return classifying.run(arguments, loaded.settings)


def _demo(arguments: argparse.Namespace) -> int:
    from proxy import demo  # late: nothing else needs it

    return demo.run(once=arguments.once, model=arguments.model)


def _print_version(_: argparse.Namespace) -> int:
    print(_version())
    return 0


def _version() -> str:
    return f"{PROGRAM} {__version__} (Python {sys.version.split()[0]})"
