"""Files of context, for their tests."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from proxy.classification.context import Context
from proxy.classification.context_reading import parse
from proxy.classification.prompts import Prompts
from proxy.classification.templates import Template
from proxy.policy import PER_OBJECT

WHOLE = """\
# What the shop's people know.
services:
  - name: checkout
    about: Takes the money; owned by team shop.
  - name: mails
    about: Sends mails, which may wait.
    matchers: ['job="postfix"', 'env=~"prod|live"']
examples:
  - alert:
      labels: {alertname: QueueGrows, team: shop, instance: "10.1.2.3:25"}
      annotations: {summary: The queue grows, runbook_url: "https://wiki.internal/queue"}
    matchers: ['team="shop"']
    verdict:
      severity: info
      category: capacity
      confidence: high
      summary: Mails go out late.
      recommendations: [Look at the workers.]
prompts:
  - matchers: ['team="db"']
    file: db.jinja
"""
DB = "{% block system %}DB.{% endblock %}{% block user %}{{ services }}{{ alert }}{% endblock %}"


def context(text: str, files: Mapping[str, str] | None = None, per_object: Collection[str] = PER_OBJECT) -> Context:
    """Return the context that `text` is, with the templates of `files` beside it."""
    files = {"db.jinja": DB} if files is None else files

    def template(name: str) -> Template:
        if name not in files:
            raise ValueError(f"cannot read {name}: no such file")
        return Template(files[name], name)

    return parse(text, "c", template, per_object)


def prompts(text: str, files: Mapping[str, str] | None = None, **given: Any) -> Prompts:
    """Return what makes prompts with the context that `text` is."""
    return Prompts(context=context(text, files), **given)
