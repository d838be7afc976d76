"""How the command line speaks: results on standard output, everything else on standard error."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from reuna.core.errors import ReunaError

T = TypeVar("T")
ENDING = (signal.SIGTERM, signal.SIGHUP)
REREAD = signal.SIGHUP  #: what tells a place to read its settings again


def complain(error: ReunaError) -> None:
    """One message, one next step."""
    from reuna.core.foreign import readable

    for line in error.message.splitlines():
        print(f"error: {readable(line)}", file=sys.stderr)
    print(f"next:  {readable(error.next_step)}  [{error.code}]", file=sys.stderr)


def as_json(value: Any) -> None:
    """Print a value as JSON."""
    print(json.dumps(value, indent=2))


def until_done(work: Coroutine[Any, Any, T], reread: Callable[[], None] | None = None) -> T:
    """Run to the end; Ctrl-C, SIGTERM and SIGHUP cancel it, and what it opened is closed first.

    With ``reread`` SIGHUP calls that instead.
    """

    async def guarded() -> T:
        task = asyncio.ensure_future(work)
        loop = asyncio.get_running_loop()
        for number in ENDING:
            loop.add_signal_handler(number, task.cancel)
        if reread is not None:
            loop.add_signal_handler(REREAD, reread)
        return await task

    try:
        return asyncio.run(guarded())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
