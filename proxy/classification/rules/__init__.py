"""The verdict of ordered tables: what runs without a model, and what stands in when the model has no answer in time.

    version: 1
    author_severity:                 how authors say severity
      labels: [severity, priority]   asked in this order; the first that holds a known word decides
      words:
        critical: [critical, page]   compared without case, spaces, `-` and `_`: "SEV-1" is sev1
    categories:                      what people read where no rule has a text
      storage:
        summary: …                   and recommendations, runbook, as below
    rules:
      - name: disk-filling           a-z, 0-9 and hyphens; unique
        match: ['job=~"node.*"']     Alertmanager's matchers; all must hold
        pattern: '\\b(disk|volume) .*\\bfull\\b'
                                     searched, without case, in the words of the alertname:
                                     NodeDiskAlmostFull is read as "node disk almost full"
        severity: critical           used only where the author gave none
        category: storage
        summary: A disk is filling.  at most 160 characters
        recommendations:             first steps for people: at most 3, each at most 120 characters
          - Find what grew with du -x on the mount point.
        runbook: https://…           shown beside them
        examples: [NodeDiskFull]     alertnames for which this rule is to decide
    overrides:                       by the exact alertname
      NodeDiskFull:
        severity: info               used where the author gave none
        force: true                  with this, in the place of the author's, too
        category: storage            and summary, recommendations, runbook
    tests:
      - labels: {alertname: NodeDiskFull, job: node}
        severity: critical           what is to come of it; and category, rule

A rule has `match`, `pattern` or both, and something to say. Rules are asked in their order up to the first that matches
and has a category; of those that match, the first that has a severity gives it, and so with each of the texts.

Read are the labels of the alert as it was sent, and nothing else: not its annotations, not its times. Replicas that
share their tables (see Rules.hash) therefore agree without asking each other.

`reading` makes a Table of a file, `conditions` finds the rules that an alert meets, `asking` makes a verdict of them,
and `checking` finds what is wrong with a table that can be read.
"""

from __future__ import annotations

from proxy.classification.rules.asking import Explanation, Reason, Rules
from proxy.classification.rules.conditions import NAME_LENGTH, words

__all__ = ["NAME_LENGTH", "Explanation", "Reason", "Rules", "words"]
