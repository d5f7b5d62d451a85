"""A classifier of the user's own, tried where its author sees what it prints and raises: in the caller's process.

It is made and asked as the worker does it, but nobody ends it when it hangs. Importing this module may lead to LiteLLM:
the proxy's own process must not.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from proxy.classification.classification import Classification
from proxy.classification.worker import providers
from proxy.classification.worker.making import Making, asker_of
from proxy.classification.worker.protocol import Ask, Configure
from proxy.errors import ClassifierUnusable


@asynccontextmanager
async def trial(configure: Configure) -> AsyncIterator[Callable[[Ask], Awaitable[Classification]]]:
    """Yield what asks the first model that is configured, and raises ClassifierError.

    Tracebacks go to standard error. Raises ClassifierUnusable.
    """
    os.environ.update(providers.LITELLM_ENVIRONMENT)
    async with AsyncExitStack() as stack:
        making = Making(configure, stack, on_stuck=lambda: None, on_error=traceback.print_exception)
        made = await making.model(configure.models[0])
        if isinstance(made, ClassifierUnusable):
            raise made

        async def ask_about(ask: Ask) -> Classification:
            return await asker_of(made, ask).ask(ask.messages, ask.seconds)

        yield ask_about
