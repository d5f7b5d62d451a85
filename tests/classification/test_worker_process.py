"""What the model worker's process gets from ours."""

from proxy.classification.worker import process
from proxy.config import variables
from proxy.config.catalog import CATALOG


def test_the_child_gets_our_environment_without_our_settings(monkeypatch):
    declared = {setting.variable: f"value {n}" for n, setting in enumerate(CATALOG)}
    for name, value in declared.items():
        monkeypatch.setenv(name, value)
    secret = [setting.variable for setting in CATALOG if setting.is_secret or setting.file_of]
    assert {"LLM_API_KEY", "LLM_API_KEY_FILE", "STORE_PASSWORD", "WEB_ADMIN_TOKEN"} <= set(secret)
    monkeypatch.setenv("AWS_PROFILE", "prod")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-of-a-fallback")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    environ = process._environment(variables())
    assert not set(secret) & set(environ)
    assert not set(declared.values()) & set(environ.values())  # an address may hold a password too
    assert environ["AWS_PROFILE"] == "prod"
    assert environ["ANTHROPIC_API_KEY"] == "sk-of-a-fallback"
    assert environ["HTTPS_PROXY"] == "http://proxy.example:3128"
