"""`python -m proxy` is `alertmanager-ai-proxy`."""

import sys

from proxy.cli import main

sys.exit(main())
