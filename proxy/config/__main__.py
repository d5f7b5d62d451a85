"""Prints the reference of the settings: `make docs` keeps it as docs/reference/configuration.md."""

from __future__ import annotations

import sys

from proxy.config import reference

INTRODUCTION = """\
<!-- Written by `make docs` from proxy/config; edit it there. -->

# Configuration

Every setting can be given in four ways. The first one that gives it holds:

1. a flag: `--llm.timeout=20s`
2. an environment variable: `LLM_TIMEOUT=20s`
3. the file named by `--config.file`: `timeout: 20s` below `llm:`
4. the default

Nothing is required. `alertmanager-ai-proxy check-config FILE` says what is wrong with a file, all of it at once, each
mistake with its line:

```
config.yaml:7: unknown key llm.timeuot; did you mean llm.timeout?
```

A typical file:

```yaml
enrichment:
  mode: enriched
  skip:
    - alertname=~"Watchdog|InfoInhibitor"
    - alertname=~"AlertmanagerAIProxy.*"
    - severity="info", team="sandbox"
llm:
  enabled: true
  provider: openai
  api_key: ${LLM_API_KEY}
  model: gpt-4o
  timeout: 30s
```

**Durations** carry their unit, as in Prometheus: `500ms`, `30s`, `1h30m`, `24h`, `7d`. A bare `30` is a mistake.

**Lists** are YAML lists, repeated flags, or a variable with commas. A comma in double quotes or braces separates
nothing: `ENRICHMENT_SKIP='{severity="info",team="sandbox"},alertname="Watchdog"'` has two entries. An empty YAML list
(`skip: []`) takes the default away.

**Variables in the file.** `${LLM_API_KEY}` is replaced by the variable's value, inside a longer value too. A variable
that is not set counts as empty, with a warning; a value that is empty because of it, or that is not there (`model:`),
leaves the default. `$${` stands for `${` itself.

**Variables in the environment** that are empty count as not set, and unknown ones are ignored. In the file unknown and
repeated keys are mistakes.

**Secrets** have no flag, because everybody can read the flags of a process. They come from a variable, from
`${VARIABLE}` in the file, or from a file of their own, which the setting with `_file` after its name points to. They
are printed as `<secret>`.

"""

if __name__ == "__main__":
    sys.stdout.write(INTRODUCTION + reference())
