"""How a process of ours ends: on a signal, in order; on an error of ours, with a message and a status.

Here rather than in the command line, whose libraries a place that stays for years does not load.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn, TypeVar

from reuna.core.errors import ReunaError

log = logging.getLogger("reuna")
T = TypeVar("T")
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
REREAD = signal.SIGHUP  #: what tells a place to read its settings again


def in_order(work: Callable[[], object]) -> None:
    """Carry out ``work``, a whole process: errors of ours become a message, a next step and a status."""
    end_in_order()
    try:
        work()
    except ReunaError as error:
        _end(error)
    except OSError as error:
        from reuna.adapters.files import system_error

        found = system_error(error)
        if found is None:
            raise
        found.__cause__ = error
        _end(found)
    except KeyboardInterrupt:
        sys.exit(130)


def _end(error: ReunaError) -> NoReturn:
    log.debug("where it happened", exc_info=error)
    complain(error)
    sys.exit(error.exit_status)


def complain(error: ReunaError) -> None:
    """One message, one next step."""
    from reuna.core.foreign import readable

    for line in error.message.splitlines():
        print(f"error: {readable(line)}", file=sys.stderr)
    print(f"next:  {readable(error.next_step)}  [{error.code}]", file=sys.stderr)


def end_in_order() -> None:
    """From now on the first signal that ends us becomes `KeyboardInterrupt`, and no further one is heard.

    So whatever tidies up on the way out is not cut short by a second Ctrl-C.
    """

    def end(_number: int, _frame: FrameType | None) -> None:
        _heed(signal.SIG_IGN)
        say_stopping()
        raise KeyboardInterrupt

    _heed(end)


def say_stopping() -> None:
    """Past Python's own buffers, which a signal may find in the middle of a write."""
    os.write(2, "stopping…\n".encode())


def until_done(
    work: Coroutine[Any, Any, T],
    reread: Callable[[], None] | None = None,
    stopping: Callable[[], None] = say_stopping,
) -> T:
    """Run to the end; Ctrl-C, SIGTERM and SIGHUP cancel it, and what it opened is closed first.

    The first of them calls ``stopping`` at once, also while the loop is busy; no further one is heard.
    With ``reread`` SIGHUP calls that instead.
    """

    async def guarded() -> T:
        task = asyncio.ensure_future(work)
        loop = asyncio.get_running_loop()

        def end(_number: int, _frame: FrameType | None) -> None:
            _heed(signal.SIG_IGN)
            stopping()
            with suppress(RuntimeError):  # the loop has just ended by itself
                loop.call_soon_threadsafe(task.cancel)

        _heed(end)
        if reread is not None:
            loop.add_signal_handler(REREAD, reread)
        return await task

    before = {number: signal.getsignal(number) for number in ENDING}
    try:
        result = asyncio.run(guarded())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None  # further signals stay unheard until the process has ended
    except BaseException:
        _restore(before)
        raise
    _restore(before)
    return result


def _heed(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    """Handle the ending signals so, but for those that whoever started us wants ignored (nohup)."""
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def _restore(handlers: dict[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)
