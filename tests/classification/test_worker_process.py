"""What the model worker's process gets from ours."""

from proxy.classification.worker import process


def test_the_child_gets_our_environment_without_our_secrets(monkeypatch):
    monkeypatch.setenv("LLM_API_KEY", "sk-secret")
    monkeypatch.setenv("WEB_ADMIN_TOKEN", "s3cret")
    monkeypatch.setenv("AWS_PROFILE", "prod")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    environ = process._environment()
    assert {"LLM_API_KEY", "WEB_ADMIN_TOKEN"} & set(environ) == set()
    assert not {"sk-secret", "s3cret"} & set(environ.values())
    assert (environ["AWS_PROFILE"], environ["HTTPS_PROXY"]) == ("prod", "http://proxy.example:3128")
