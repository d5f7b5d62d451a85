"""Coverage-guided fuzzing of the decoder of POSTs of alerts: `make fuzz SECONDS=600`.

atheris makes bytes of those in `corpus/`; `decoder_promises.check` says what must hold for any. A finding is written
to the working directory: put it into `corpus/` under a name that says what it is, and `make test` keeps it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent)]

with atheris.instrument_imports(include=["proxy"]):
    from proxy.gateway import alerts  # noqa: F401 # so that its branches are seen

from decoder_promises import check  # noqa: E402 # found by the path above

if __name__ == "__main__":
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()
