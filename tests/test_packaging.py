"""What is shipped beside the code: the wheel, the locks, the image, and the manifests of deploy/.

There is no container engine where the tests run. They read the Dockerfile and the manifests, and hand to the real
promtool and amtool what those can judge.
"""

import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterator
from email import message_from_bytes
from importlib.metadata import Distribution, distributions
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import proxy

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
COMPOSE = ROOT / "deploy" / "compose"
IMAGE = f"alertmanager-ai-proxy:{proxy.__version__}"


# The wheel


@pytest.fixture(scope="session")
def wheel(tmp_path_factory) -> Iterator[ZipFile]:
    target = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(target)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    (path,) = target.glob("*.whl")
    with ZipFile(path) as archive:
        yield archive


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    info = f"alertmanager_ai_proxy-{proxy.__version__}.dist-info"
    shipped = {name for name in wheel.namelist() if not name.startswith(f"{info}/")}
    package = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "proxy").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert shipped == package
    assert f"{info}/licenses/LICENSE" in wheel.namelist()


@pytest.mark.parametrize("name", ["rules.yaml", "prompt.jinja", "py.typed"])
def test_the_wheel_holds_what_is_read_at_run_time(wheel, name):
    assert [path for path in wheel.namelist() if Path(path).name == name]


def test_the_wheel_brings_the_command(wheel):
    (path,) = (name for name in wheel.namelist() if name.endswith("/entry_points.txt"))
    assert "alertmanager-ai-proxy = proxy.cli:main" in wheel.read(path).decode()


def test_a_plain_install_brings_litellm(wheel):
    (path,) = (name for name in wheel.namelist() if name.endswith("/METADATA"))
    metadata = message_from_bytes(wheel.read(path))
    needed = [Requirement(text) for text in metadata.get_all("Requires-Dist")]
    assert "litellm" in {requirement.name for requirement in needed if not requirement.marker}
    assert metadata["Version"] == proxy.__version__


# The locks


def locked(name: str) -> dict[str, list[Requirement]]:
    """Return the requirements of a lock; one package may stand there more than once, with markers."""
    found: dict[str, list[Requirement]] = {}
    for entry in entries(name):
        requirement = Requirement(entry.split(" --hash=")[0])
        found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


def entries(name: str) -> list[str]:
    text = (ROOT / name).read_text().replace("\\\n", " ")
    return [" ".join(line.split()) for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]


LOCKS = pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
ALL_LOCKS = pytest.mark.parametrize(
    ("lock", "fewest"), [("requirements.lock", 40), ("requirements-dev.lock", 40), ("requirements-fuzz.lock", 1)]
)


@ALL_LOCKS
def test_every_locked_package_is_pinned_and_hashed(lock, fewest):
    assert len(entries(lock)) >= fewest
    unsafe = [
        entry
        for entry in entries(lock)
        if not re.fullmatch(r"[^ ]+==[^ ]+( ; .+?)?( --hash=sha256:[0-9a-f]{64})+", entry)
    ]
    assert unsafe == []


@ALL_LOCKS
def test_no_lock_says_where_packages_are_from(lock, fewest):
    assert not re.search(r"https?://|--index|--extra-index|--find-links|--trusted", (ROOT / lock).read_text())


@LOCKS
def test_the_lock_satisfies_the_project(lock):
    development = PYPROJECT["dependency-groups"]["dev"] if lock == "requirements-dev.lock" else []
    packages = locked(lock)
    wrong = [
        text
        for text in [*PYPROJECT["project"]["dependencies"], *development]
        if not versions(packages, (wanted := Requirement(text)).name)
        or not all(wanted.specifier.contains(version) for version in versions(packages, wanted.name))
    ]
    assert wrong == []


def versions(packages: dict[str, list[Requirement]], name: str) -> list[str]:
    return [next(iter(entry.specifier)).version for entry in packages.get(canonicalize_name(name), [])]


def test_development_runs_on_the_versions_that_are_shipped():
    shipped, development = locked("requirements.lock"), locked("requirements-dev.lock")
    assert {name: development.get(name) for name in shipped} == shipped


@LOCKS
def test_no_litellm_that_was_compromised(lock):
    (version,) = versions(locked(lock), "litellm")
    assert not compromised(Version(version))


@pytest.mark.parametrize("version", ["1.82.7", "1.82.8", "1.107.0", "1.107.3"])
def test_the_project_refuses_compromised_litellms(version):
    (wanted,) = (r for r in map(Requirement, PYPROJECT["project"]["dependencies"]) if r.name == "litellm")
    assert compromised(Version(version))
    assert not wanted.specifier.contains(version)


def compromised(litellm: Version) -> bool:
    return litellm in {Version("1.82.7"), Version("1.82.8")} or litellm.release[:2] == (1, 107)


# What Python runs at every start. A `.pth` file is how the stealer in LiteLLM 1.82.8 got itself run.

EXPECTED_PTH = {
    "distutils-precedence.pth": "setuptools",  # which Python 3.11 puts into every new environment
    "a1_coverage.pth": "coverage",  # measures the processes that tests start
}
OUR_PTH = re.compile(r"_?(_editable_impl_)?alertmanager_ai_proxy\.pth")


def surprises(site: Path, installed: list[Distribution]) -> list[str]:
    """Return the files that Python would run at its start and that we cannot account for."""
    recorded = {
        file.name: canonicalize_name(distribution.name)
        for distribution in installed
        for file in distribution.files or ()
        if file.suffix == ".pth" and len(file.parts) == 1
    }
    found = [*site.glob("*.pth"), *site.glob("sitecustomize*"), *site.glob("usercustomize*")]
    return sorted(path.name for path in found if not expected(path, recorded.get(path.name)))


def expected(path: Path, brought_by: str | None) -> bool:
    if OUR_PTH.fullmatch(path.name):
        # A path on each line: Python runs the lines that begin with `import`.
        return brought_by == "alertmanager-ai-proxy" and not re.search(r"^import\s", path.read_text(), re.MULTILINE)
    return brought_by is not None and EXPECTED_PTH.get(path.name) == brought_by


def test_nothing_unexpected_runs_when_python_starts():
    for site in {Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")}:
        assert surprises(site, list(distributions(path=[str(site)]))) == []


@pytest.mark.parametrize("name", ["litellm_init.pth", "sitecustomize.py", "usercustomize.py", "a1_coverage.pth"])
def test_a_planted_file_is_noticed(tmp_path, name):
    (tmp_path / name).write_text("import os; os.system('true')\n")
    assert surprises(tmp_path, []) == [name]


# The image


def dockerfile() -> list[tuple[str, str]]:
    """Return the instructions, with lines that were continued put together."""
    text = re.sub(r"(?m)^\s*#.*\n", "", (ROOT / "Dockerfile").read_text())
    lines = text.replace("\\\n", " ").splitlines()
    return [(word, " ".join(rest.split())) for word, _, rest in (line.partition(" ") for line in lines if line)]


def last_stage() -> list[tuple[str, str]]:
    instructions = dockerfile()
    start = max(i for i, (word, _) in enumerate(instructions) if word == "FROM")
    return instructions[start:]


def test_the_image_runs_as_a_numeric_user_that_is_not_root():
    assert [rest for word, rest in last_stage() if word == "USER"] == ["65532:65532"]


def test_the_image_is_built_from_a_base_with_a_version():
    (base,) = (rest.removeprefix("PYTHON=") for word, rest in dockerfile() if word == "ARG")
    assert re.fullmatch(r"python:3\.\d+-slim-bookworm", base)
    assert {rest.split()[0] for word, rest in dockerfile() if word == "FROM"} == {"${PYTHON}"}
    assert ":latest" not in (ROOT / "Dockerfile").read_text()


def test_the_image_runs_a_python_that_ci_tests():
    version = re.search(r"python:(3\.\d+)", (ROOT / "Dockerfile").read_text())
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    assert version
    assert version[1] in workflow["jobs"]["test"]["strategy"]["matrix"]["python"]


def test_the_image_installs_what_is_locked_and_nothing_else():
    installs = [rest for word, rest in dockerfile() if word == "RUN" and re.search(r"\bpip\b.* install\b", rest)]
    assert len(installs) == 3
    for install in installs:
        assert ("--require-hashes -r requirements" in install) != ("--no-deps /wheel/*.whl" in install), install
    copied = " ".join(rest for word, rest in dockerfile() if word == "COPY")
    assert "requirements.lock" in copied
    assert not [rest for word, rest in last_stage() if word in {"RUN", "ADD"}]


def test_the_image_starts_the_command_without_a_shell():
    assert ("ENTRYPOINT", '["alertmanager-ai-proxy"]') in last_stage()


def test_the_image_downloads_nothing_when_it_runs():
    environment = " ".join(rest for word, rest in last_stage() if word == "ENV")
    assert "LITELLM_LOCAL_MODEL_COST_MAP=True" in environment
    assert "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS=True" in environment


def test_the_image_says_which_version_it_is():
    labels = " ".join(rest for word, rest in last_stage() if word == "LABEL")
    assert f'org.opencontainers.image.version="{proxy.__version__}"' in labels


def test_the_image_is_sent_all_it_copies_and_no_secrets():
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        name.removeprefix("./")
        for word, rest in dockerfile()
        if word == "COPY" and "--from" not in rest
        for name in rest.split()[:-1]
    }
    assert copied == sent
    assert "*" in (ROOT / ".dockerignore").read_text().splitlines()


# deploy/compose


@pytest.fixture
def compose():
    return yaml.safe_load((COMPOSE / "docker-compose.yml").read_text())["services"]


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.fail(f"no {name} on PATH; `make programs` installs it")
    return found


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["promtool", "check", "config", "prometheus.yml"], id="promtool reads prometheus.yml"),
        pytest.param(["promtool", "check", "rules", "rules.yml"], id="promtool reads rules.yml"),
        pytest.param(["amtool", "check-config", "alertmanager.yml"], id="amtool reads alertmanager.yml"),
    ],
)
def test_the_real_programs_accept_the_compose_files(command):
    name, *args = command
    done = subprocess.run([program(name), *args], cwd=COMPOSE, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_in_compose_the_proxy_has_no_privileges(compose):
    service = compose["proxy"]
    assert service["user"] == "65532:65532"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_in_compose_every_mounted_file_is_there(compose):
    for name, service in compose.items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert not source.startswith("./") or (COMPOSE / source).is_file(), f"{name}: {source}"


def test_in_compose_alerts_take_one_way_only(compose):
    prometheus = yaml.safe_load((COMPOSE / "prometheus.yml").read_text())
    targets = [
        target
        for manager in prometheus["alerting"]["alertmanagers"]
        for group in manager["static_configs"]
        for target in group["targets"]
    ]
    assert targets == ["proxy:19093"]
    assert yaml.safe_load((COMPOSE / "proxy.yaml").read_text())["alertmanager"]["url"] == "http://alertmanager:9093"
    assert "ports" not in compose["alertmanager"]


def test_in_compose_nothing_is_published_beyond_this_host(compose):
    published = [port for service in compose.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_in_compose_no_key_is_written_down(compose):
    given = [variable for variable in compose["proxy"]["environment"] if "=" in variable]
    assert given == ["WEB_ADMIN_TOKEN_FILE=/run/secrets/admin_token"], "a file's name alone"


# deploy/kubernetes


@pytest.fixture
def manifests():
    return list(yaml.safe_load_all((ROOT / "deploy" / "kubernetes" / "sidecar.yaml").read_text()))


def of_kind(manifests, kind):
    (found,) = (manifest for manifest in manifests if manifest["kind"] == kind)
    return found


@pytest.fixture
def pod(manifests):
    return of_kind(manifests, "StatefulSet")["spec"]["template"]["spec"]


@pytest.fixture
def sidecar(pod):
    (container,) = pod["initContainers"]
    return container


def test_the_proxy_is_a_native_sidecar(sidecar):
    assert sidecar["restartPolicy"] == "Always"
    assert sidecar["image"] == IMAGE


def test_the_pod_has_no_privileges(pod):
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 65532
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in [*pod["initContainers"], *pod["containers"]]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_the_probes_ask_the_admin_listener(sidecar):
    paths = {name: sidecar[name]["httpGet"]["path"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    # Alertmanager starts after the sidecar's startup probe has passed, which therefore must not wait for Alertmanager.
    assert paths == {"startupProbe": "/-/healthy", "livenessProbe": "/-/healthy", "readinessProbe": "/-/ready"}
    assert {sidecar[name]["httpGet"]["port"] for name in paths} == {"metrics-ai"}


def test_no_load_balancer_stands_in_between(manifests):
    service = of_kind(manifests, "Service")["spec"]
    assert service["type"] == "ClusterIP"
    assert service["clusterIP"] == "None"


def test_the_service_the_containers_and_the_settings_agree_on_ports(manifests, pod):
    service = {port["name"]: port["port"] for port in of_kind(manifests, "Service")["spec"]["ports"]}
    containers = {
        port["name"]: port["containerPort"]
        for container in [*pod["initContainers"], *pod["containers"]]
        for port in container["ports"]
    }
    settings = config_map(manifests, "config.yaml")
    assert service == containers == {"http-web": 9093, "http-ai": 19093, "metrics-ai": 19094}
    assert settings["web"] == {"listen_address": ":19093", "admin_listen_address": ":19094"}
    assert settings["alertmanager"]["url"] == "http://127.0.0.1:9093"


def test_several_replicas_would_need_a_shared_store(manifests):
    assert of_kind(manifests, "StatefulSet")["spec"]["replicas"] == 1
    assert config_map(manifests, "config.yaml")["store"]["url"] == "sqlite:"


def test_the_service_and_the_set_select_the_pods(manifests):
    labels = of_kind(manifests, "StatefulSet")["spec"]["template"]["metadata"]["labels"]
    assert of_kind(manifests, "Service")["spec"]["selector"] == labels
    assert of_kind(manifests, "StatefulSet")["spec"]["selector"]["matchLabels"] == labels


def test_every_volume_is_declared_and_every_configuration_exists(manifests, pod):
    mounted = {m["name"] for c in [*pod["initContainers"], *pod["containers"]] for m in c["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    named = {volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume}
    assert named == {m["metadata"]["name"] for m in manifests if m["kind"] == "ConfigMap"}


def test_the_key_is_read_from_the_secret_and_not_written_down(manifests, pod, sidecar):
    assert "Secret" not in {manifest["kind"] for manifest in manifests}
    (mount,) = (m["mountPath"] for m in sidecar["volumeMounts"] if m["name"] == "ai-proxy-secret")
    assert {variable["name"]: variable["value"] for variable in sidecar["env"]} == {
        "LLM_API_KEY_FILE": f"{mount}/llm-api-key",
        "WEB_ADMIN_TOKEN_FILE": f"{mount}/admin-token",
    }


def test_the_real_amtool_accepts_the_alertmanager_of_the_pod(manifests, tmp_path):
    path = tmp_path / "alertmanager.yml"
    path.write_text(yaml.safe_dump(config_map(manifests, "alertmanager.yml")))
    done = subprocess.run([program("amtool"), "check-config", str(path)], capture_output=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr


def config_map(manifests, key):
    (text,) = (m["data"][key] for m in manifests if m["kind"] == "ConfigMap" and key in m["data"])
    return yaml.safe_load(text)
