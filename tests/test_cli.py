"""The command line, most of it as the process that a user starts."""

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys

import pytest
from fakes import answer, body, exchange, post, posted, status_of

from proxy import __version__, cli

SEED = """\
llm:
  enabled: true
  provider: openai
  api_key: ${LLM_API_KEY}
  model: gpt-4o
  base_url: https://api.openai.com/v1
  timeout: 30s
  max_retries: 3
  enable_cache: true
  cache_ttl: 24h
  enable_fallback: true
"""


def run(*arguments, **environ):
    return subprocess.run(
        [sys.executable, "-m", "proxy", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        env=os.environ | environ,
        stdin=subprocess.DEVNULL,
        check=False,
    )


@pytest.mark.parametrize("arguments", [["version"], ["--version"], ["serve", "--version"]], ids=" ".join)
def test_it_says_its_version(arguments):
    done = run(*arguments)
    assert done.returncode == 0
    assert done.stdout.startswith(f"alertmanager-ai-proxy {__version__} ")


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["serve", "--llm.modl=x"], ["--log.leve=debug"], ["check-config"], ["serve", "extra"]],
    ids=" ".join,
)
def test_wrong_usage_is_exit_2(arguments, capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(arguments)
    assert left.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_a_good_file_is_ok(tmp_path, capsys):
    file = tmp_path / "config.yaml"
    file.write_text(SEED)
    assert cli.main(["check-config", str(file)]) == 0
    out, err = capsys.readouterr()
    assert out == f"{file}: OK\n"
    assert "LLM_API_KEY" in err, "an unset variable is a warning"


def test_the_settings_are_printed_without_their_secrets(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("LLM_API_KEY", "sk-canary")
    file = tmp_path / "config.yaml"
    file.write_text(SEED)
    assert cli.main(["check-config", str(file), "-o", "json"]) == 0
    out, err = capsys.readouterr()
    printed = json.loads(out)
    assert (printed["llm"]["api_key"], printed["llm"]["timeout"]) == ("<secret>", "30s")
    assert "sk-canary" not in out + err


@pytest.mark.parametrize(
    ("llm", "warning"),
    [
        ("", "no API key; set LLM_API_KEY, llm.api_key or llm.api_key_file"),
        ("provider: opneai, api_key: sk-1", "llm: the provider opneai; did you mean openai?"),
        (
            "provider: ollama, fallbacks: [anthropic/claude-haiku-4-5]",
            "llm.fallbacks: anthropic/claude-haiku-4-5: no API key; set ANTHROPIC_API_KEY or ANTHROPIC_AUTH_TOKEN",
        ),
        ("provider: ollama, fallbacks: [openai/local@http://127.0.0.1:8000/v1]", None),
        ("api_key: sk-1, fallbacks: [openai/gpt-4o-mini]", None),
        ("provider: azure_ai, api_key: sk-1", None),
    ],
)
def test_a_model_that_could_not_be_asked_is_a_warning(llm, warning, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    file = tmp_path / "config.yaml"
    file.write_text(f"llm: {{enabled: true, {llm}}}\n")
    assert cli.main(["check-config", str(file)]) == 0
    assert capsys.readouterr().err == (f"warning: {warning}\n" if warning else "")


def test_all_mistakes_are_reported_with_their_lines(tmp_path, capsys):
    file = tmp_path / "config.yaml"
    file.write_text("llm:\n  timeuot: 30s\n  max_retries: many\nenrichment:\n  budget: 3\n")
    assert cli.main(["check-config", str(file)]) == 1
    problems = capsys.readouterr().err.splitlines()
    assert [re.search(r":(\d+): ", problem)[1] for problem in problems] == ["2", "3", "5"]
    assert problems[0].endswith("unknown key llm.timeuot; did you mean llm.timeout?")


@pytest.mark.parametrize("content", ["llm: [", "llm:\n  timeuot: 30s\n"], ids=["not YAML", "an unknown key"])
def test_a_file_that_cannot_be_used_ends_the_start_with_exit_1_and_the_line(tmp_path, content):
    file = tmp_path / "config.yaml"
    file.write_text(content)
    done = run(f"--config.file={file}")
    assert done.returncode == 1
    assert re.search(r"config\.yaml:\d+: ", done.stderr)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("secret", ["--llm.api-key=sk-canary", "--web.admin-token=sk-canary"])
def test_secrets_are_not_taken_from_flags_and_not_repeated(secret):
    done = run(secret)
    assert done.returncode == 1
    assert "sk-canary" not in done.stdout + done.stderr
    assert "-file" in done.stderr


class Serving:
    """The process, and what it has said so far."""

    def __init__(self, process, said):
        self.process, self.said = process, said

    @property
    def ports(self):
        banner = next(line for line in self.said if "alertmanager-ai-proxy serves" in line)
        return (int(re.search(rf'{name}"?[=:] ?"?127\.0\.0\.1:(\d+)', banner)[1]) for name in ("listen", "admin"))


@pytest.fixture
async def serve(alertmanager):
    started = []

    async def start(*arguments, **environ):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "proxy", f"--alertmanager.url={alertmanager.url}", "--store.url=memory:"),
            *("--web.listen-address=127.0.0.1:0", "--web.admin-listen-address", "127.0.0.1:0", *arguments),
            stderr=asyncio.subprocess.PIPE,
            env=os.environ | environ,
        )
        started.append(process)
        said = []
        while not said or "alertmanager-ai-proxy serves" not in said[-1]:
            line = (await asyncio.wait_for(process.stderr.readline(), 20)).decode()
            assert line, f"it ended: {said}"
            said.append(line)
        return Serving(process, said)

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
async def test_bare_flags_mean_serve_and_a_signal_drains_with_exit_0(serve, alertmanager, signum):
    serving = await serve("--enrichment.mode=enriched")
    data_port, _ = serving.ports
    slow = asyncio.Event()
    alertmanager.respond = lambda _: slow.set() or None
    pending = asyncio.create_task(exchange(data_port, post(body(posted()))))
    await asyncio.wait_for(slow.wait(), 5)
    serving.process.send_signal(signum)
    await asyncio.sleep(0.3)
    assert serving.process.returncode is None, "a POST is on its way"
    await alertmanager.stop()
    assert status_of(await asyncio.wait_for(pending, 10)) in {502, 504}
    assert await asyncio.wait_for(serving.process.wait(), 15) == 0


async def test_names_that_nobody_looks_up_do_not_hold_up_its_end(serve, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import socket, time\n"
        "found = socket.getaddrinfo\n"
        "def hangs(host, *args, **options):\n"
        "    if 'invalid' not in str(host):\n"
        "        return found(host, *args, **options)\n"
        "    print('looked up:', host, file=__import__('sys').stderr, flush=True)\n"
        "    time.sleep(60)\n"
        "socket.getaddrinfo = hangs\n"
    )
    serving = await serve("--alertmanager.url=http://am.invalid:9093", PYTHONPATH=str(tmp_path))
    async with asyncio.timeout(10):
        while not any("looked up" in line for line in serving.said):
            serving.said.append((await serving.process.stderr.readline()).decode())
    serving.process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(serving.process.wait(), 15) == 0


async def test_a_second_signal_ends_it_at_once(serve, alertmanager):
    serving = await serve()
    data_port, _ = serving.ports
    reached = asyncio.Event()
    alertmanager.respond = lambda _: reached.set() or None
    pending = asyncio.create_task(exchange(data_port, post(body(posted()))))
    await asyncio.wait_for(reached.wait(), 5)
    serving.process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(10):
        while "stopping:" not in (await serving.process.stderr.readline()).decode():
            pass
    assert serving.process.returncode is None, "a POST is on its way"
    serving.process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(serving.process.wait(), 5) == -signal.SIGTERM
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        await pending


async def test_the_four_variables_alone_work(serve):
    serving = await serve(LLM_ENABLED="true", LLM_PROVIDER="openai", LLM_API_KEY="sk-canary", LLM_MODEL="gpt-4o-mini")
    banner = serving.said[-1]
    assert "model=openai/gpt-4o-mini" in banner
    assert "key=set" in banner
    assert "sk-canary" not in "".join(serving.said)


async def test_the_seed_file_works_as_it_stands(serve, tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(SEED)
    serving = await serve("--config.file", str(file), LLM_API_KEY="sk-canary")
    assert "model=openai/gpt-4o" in serving.said[-1]
    assert "mode=transparent" in serving.said[-1]


@pytest.mark.parametrize(("form", "looks"), [("logfmt", "event="), ("json", '{"'), ("console", "serves")])
async def test_logs_come_in_the_form_that_was_asked_for(serve, form, looks):
    serving = await serve(f"--log.format={form}")
    assert looks in serving.said[-1]
    if form == "json":
        assert json.loads(serving.said[-1])["mode"] == "transparent"


async def test_a_port_that_is_taken_ends_the_start(alertmanager):
    taken, free = f"--web.listen-address=127.0.0.1:{alertmanager.port}", "--web.admin-listen-address=127.0.0.1:0"
    done = await asyncio.to_thread(run, taken, free, "--store.url=memory:")
    assert done.returncode == 1
    assert f"web.listen_address: cannot listen on 127.0.0.1:{alertmanager.port}" in done.stderr
    assert "Traceback" not in done.stderr


async def test_alertmanager_refusing_our_own_question_is_loud(serve, alertmanager):
    alertmanager.held = answer("401 Unauthorized")
    serving = await serve()
    async with asyncio.timeout(10):
        line = (await serving.process.stderr.readline()).decode()
    assert "level=error" in line
    assert "it wants credentials" in line


def test_a_probe_needs_no_file_where_the_environment_says_everything(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALERTMANAGER_URL", "http://127.0.0.1:1")
    assert cli.main(["check-config", "--probe"]) == 1
    first, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith("error    alertmanager: GET http://127.0.0.1:1/api/v2/status: cannot connect")


def test_a_file_that_cannot_be_used_is_not_probed(tmp_path, capsys):
    file = tmp_path / "config.yaml"
    file.write_text("llm:\n  timeuot: 30s\n")
    assert cli.main(["check-config", "--probe", str(file)]) == 1
    out, err = capsys.readouterr()
    assert not out
    assert "did you mean llm.timeout?" in err


@pytest.mark.parametrize("setting", ["config", "admin_config"])
def test_check_config_reads_the_files_of_listeners_and_their_certificates(setting, tmp_path, capsys):
    (tmp_path / "web.yml").write_text("tls_server_config: {cert_file: nobody.pem, key_file: nobody.key}\n")
    file = tmp_path / "config.yml"
    file.write_text(f"web:\n  {setting}:\n    file: {tmp_path / 'web.yml'}\n")
    assert cli.main(["check-config", str(file)]) == 1
    assert f"cert_file {tmp_path / 'nobody.pem'}" in capsys.readouterr().err
