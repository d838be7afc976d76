"""The first life of an egress or a reader as a fork of its place: what both need is in memory once.

    agent ── starter (a fork, then `reuna.exchange.starter`) ── egress (a fork of it)

The fork shares its pages until one of both writes to them; what the place has no use for it loads itself. It
is made before the place holds any line to the outside, and while it has a single thread; every descriptor but
those it is meant to have is closed first.
What starts it becomes the small program that `reuna.exchange.child` runs too, and keeps the same promise:
what is started is fixed once, and the place has no say in it afterwards. Each later life is a fresh Python.

What a fork gives up is one layer: egress and agent have the same addresses in memory. Keys are not shared:
the egress opens them itself, after the fork. Linux only.
"""

from __future__ import annotations

import importlib
import logging
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial

from reuna.adapters.processes import become, end_with_parent, loading, settle
from reuna.adapters.sandbox.environment import close_descriptors
from reuna.exchange import starter
from reuna.exchange.child import Starting, start_keeping, starter_command

#: Its end of the line, the id of who started it, its settings; the status to end with.
Entry = Callable[[socket.socket, int, str], int]
HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Forked:
    """A process that is a fork of this one."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._ended = False

    def terminate(self) -> None:
        """Tell it to end; nothing when it was waited for."""
        if not self._ended:
            os.kill(self.pid, signal.SIGTERM)

    def wait(self) -> int:
        """Until it has ended; its status."""
        _, status = os.waitpid(self.pid, 0)
        self._ended = True
        return os.waitstatus_to_exitcode(status)


def fork_keeping(
    command: tuple[str, ...], settings: str, longest_s: float, sockets: Sequence[socket.socket] = ()
) -> tuple[socket.socket, Starting]:
    """`reuna.exchange.child.start_keeping`, but for the first life. No thread may run.

    ``command`` is ``-m MODULE``; a fork loads that module and calls its ``begin``. A command of another shape
    is started afresh.
    """
    if len(command) != 2:
        return start_keeping(command, settings, longest_s, sockets)
    control, theirs = socket.socketpair()
    control.setblocking(False)
    settle()  # a later collection would write to every page that is shared
    with theirs:
        pid = os.fork()
        if pid == 0:
            _end_with(partial(_start, theirs, (command, settings, longest_s), sockets))
    return control, Forked(pid)


def _start(
    control: socket.socket, asked: tuple[tuple[str, ...], str, float], sockets: Sequence[socket.socket]
) -> int:
    """In the fork: begin the first life, then become what keeps it running."""
    command, settings, longest_s = asked
    end_with_parent()
    become("starter")
    _forget_handlers()
    inherited = [control.fileno(), *(each.fileno() for each in sockets)]
    close_descriptors(inherited)
    ours, theirs = socket.socketpair()
    own = os.getpid()
    signal.pthread_sigmask(signal.SIG_BLOCK, starter.ENDING)  # until what we become handles them
    first = os.fork()
    if first == 0:
        _end_with(partial(_live, command[1], theirs, own, settings, (ours, control)))
    theirs.close()
    starter.hand_over(control, ours)
    for number in inherited:
        os.set_inheritable(number, True)
    words = starter_command(control.fileno(), longest_s, command, settings, first)
    os.execv(words[0], words)  # noqa: S606 - our own Python, no shell


def _live(
    module: str, sock: socket.socket, started_by: int, settings: str, others: Sequence[socket.socket]
) -> int:
    for each in others:
        each.close()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, starter.ENDING)
    with loading():
        entry: Entry = importlib.import_module(module).begin
    return entry(sock, started_by, settings)


def _forget_handlers() -> None:
    """As a fresh process: what the place does on a signal is no business of its forks."""
    signal.set_wakeup_fd(-1)
    for number in HANDLED:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def _end_with(work: Callable[[], int]) -> None:
    """Carry out all that is left of this process; nothing of the place's own stack is gone back to."""
    status = 1
    try:
        status = work()
    except SystemExit as ending:
        status = ending.code if isinstance(ending.code, int) else 1
    except BaseException:  # noqa: BLE001 - as in a fresh Python: whole, in the log of the place
        traceback.print_exc()
    finally:
        logging.shutdown()
        sys.stderr.flush()
        os._exit(status)
