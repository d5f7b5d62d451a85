#!/usr/bin/env bash
# Build a current Alertmanager and amtool into .tools/bin, beside the older ones that Debian packages, and make sure
# that there is a browser for the pages that only the built Alertmanager has.
# Optional: the tests use them where they find them.
set -euo pipefail
cd "$(dirname "$0")/.."

# From 0.32 on the module holds no built web interface and does not compile without one.
version=v0.31.1
oldest_go=1.25
module=github.com/prometheus/alertmanager

if ! command -v go >/dev/null; then
  echo "tools.sh: needs Go $oldest_go or newer on PATH, found none" >&2
  exit 1
fi
go=$(GOTOOLCHAIN=local go env GOVERSION)
go=${go#go}
if [ "$(printf '%s\n' "$oldest_go" "$go" | sort -V | head -n 1)" != "$oldest_go" ]; then
  echo "tools.sh: needs Go $oldest_go or newer on PATH, found $go" >&2
  exit 1
fi

for name in alertmanager amtool; do
  if go version -m ".tools/bin/$name" 2>/dev/null | grep -q "${module}[[:space:]]${version}"; then
    continue
  fi
  echo "tools.sh: building $name $version" >&2
  GOTOOLCHAIN=local GOBIN="$PWD/.tools/bin" CGO_ENABLED=0 go install -trimpath "$module/cmd/$name@$version"
done

scripts/programs.sh chromium chromium-driver ||
  echo "tools.sh: the tests that look at Alertmanager's pages are skipped without chromium and chromedriver" >&2
