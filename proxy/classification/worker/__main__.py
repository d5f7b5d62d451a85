"""`python -m proxy.classification.worker FD`: the model worker, started by `client.ModelWorker` and by nobody else."""

from __future__ import annotations

import sys

from proxy.classification.worker import child

if __name__ == "__main__":
    child.main(int(sys.argv[1]))
