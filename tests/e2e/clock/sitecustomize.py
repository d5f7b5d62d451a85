"""A wall clock that can jump: with this directory on PYTHONPATH, the file named by CLOCK_OFFSET holds seconds to add.

libfaketime would do the same to any program, but with a clock that moves Python's `time.sleep` in a thread ends in
EINVAL under it. The monotonic clock stays as it is, as it does when an operator or NTP sets the time.
"""

from __future__ import annotations

import datetime
import os
import sys
import time
from pathlib import Path
from typing import Any

_OFFSET = Path(os.environ["CLOCK_OFFSET"])
_time, _time_ns, _datetime = time.time, time.time_ns, datetime.datetime


def _offset() -> int:
    return int(_OFFSET.read_text() or 0)


class _Shifting(type):
    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, _datetime)


class _Datetime(_datetime, metaclass=_Shifting):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> _datetime:
        return _datetime.now(tz) + datetime.timedelta(seconds=_offset())


# The model worker has nothing to do with anybody's life, and LiteLLM's models want the genuine class.
if "proxy.classification.worker" not in sys.orig_argv:
    time.time = lambda: _time() + _offset()
    time.time_ns = lambda: _time_ns() + _offset() * 10**9
    datetime.datetime = _Datetime  # type: ignore[misc]
