"""Every file of settings that we show is accepted by check-config, and a misspelt copy of it is not."""

from pathlib import Path

import pytest
import yaml

from proxy import cli

ROOT = Path(__file__).parents[2]
SHOWN = [*sorted((ROOT / "examples" / "config").glob("*.yaml")), ROOT / "deploy" / "compose" / "proxy.yaml"]


@pytest.fixture(autouse=True)
def only_the_key_is_in_the_environment(monkeypatch):
    for name in ("ENABLED", "PROVIDER", "MODEL", "BASE_URL", "API_KEY_FILE"):
        monkeypatch.delenv(f"LLM_{name}", raising=False)
    monkeypatch.setenv("LLM_API_KEY", "made-up")


def of_the_sidecar(tmp_path: Path) -> Path:
    """Return the settings inside the Kubernetes manifest, as a file."""
    manifests = yaml.safe_load_all((ROOT / "deploy" / "kubernetes" / "sidecar.yaml").read_text())
    (text,) = (m["data"]["config.yaml"] for m in manifests if "config.yaml" in m.get("data", {}))
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return path


@pytest.fixture(params=[*SHOWN, None], ids=lambda path: f"{path.parent.name}/{path.name}" if path else "sidecar")
def shown(request, tmp_path):
    return request.param or of_the_sidecar(tmp_path)


def test_check_config_accepts_it(shown, capsys):
    code = cli.main(["check-config", str(shown)])
    assert code == 0, capsys.readouterr()


@pytest.mark.parametrize(
    ("right", "misspelt"),
    [
        pytest.param("enrichment:", "enrichmnet:", id="a section"),
        pytest.param("  mode:", "  mdoe:", id="a key in a section"),
    ],
)
def test_check_config_refuses_a_misspelt_copy(shown, right, misspelt, tmp_path, capsys):
    text = shown.read_text()
    assert right in text
    copy = tmp_path / "misspelt.yaml"
    copy.write_text(text.replace(right, misspelt))

    code = cli.main(["check-config", str(copy)])

    said = capsys.readouterr()
    assert code == 1
    assert misspelt.strip(" :") in said.err + said.out


def test_there_is_one_for_every_provider_we_name():
    names = {path.stem for path in SHOWN}
    assert {"minimal", "openai", "anthropic", "gemini", "ollama", "recommendations"} <= names
