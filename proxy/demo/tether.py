"""Become a program that the kernel kills when its parent dies: tether.py PARENT PROGRAM [ARGUMENT...]

What the demo starts must not outlive it, and nobody can clean up after SIGKILL. Run as a file, in an interpreter of its
own: the same done between fork and exec of a process with threads could hang.
"""

import contextlib
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    """Replace this process by `command`, unless the process `parent` is gone already."""
    if sys.platform == "linux":
        # Elsewhere, or in a Python without ctypes, the demo still ends what it started in every way it notices.
        with contextlib.suppress(ImportError, AttributeError):
            import ctypes

            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() == parent:
        os.execvp(command[0], command)  # noqa: S606 # to become that program is the purpose


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
