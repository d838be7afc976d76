"""First lives of egress and reader as forks of their place: what all need is in memory once.

    agent ── starter (a fork, then `reuna.exchange.starter`) ─┬─ egress (a fork of it)
                                                              └─ reader (the same)

A fork shares its pages until one of both writes to them; what the place has no use for it loads itself. It
is made before the place holds any line to the outside, and while it has a single thread; every descriptor but
those it is meant to have is closed first.
What starts them becomes the small program that `reuna.exchange.kept` runs too, and keeps the same promise:
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
from reuna.exchange.kept import Lives, Starting, controls, start_keeping, starter_command

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


def fork_keeping(lives: Sequence[Lives]) -> tuple[list[socket.socket], Starting]:
    """`reuna.exchange.kept.start_keeping`, but for first lives. No thread may run.

    A command is ``-m MODULE``; a fork loads that module and calls its ``begin``. Where one is of another
    shape all are started afresh.
    """
    if any(len(each.command) != 2 for each in lives):
        return start_keeping(lives)
    ours, theirs = controls(len(lives))
    settle()  # a later collection would write to every page that is shared
    pid = os.fork()
    if pid == 0:
        _end_with(partial(_start, theirs, lives))
    for each in theirs:
        each.close()
    return ours, Forked(pid)


def _start(theirs: Sequence[socket.socket], lives: Sequence[Lives]) -> int:
    """In the fork: begin the first lives, then become what keeps them running."""
    end_with_parent()
    become("starter")
    _forget_handlers()
    inherited = [*theirs, *(lent for each in lives for lent in each.sockets)]
    close_descriptors([each.fileno() for each in inherited])
    signal.pthread_sigmask(signal.SIG_BLOCK, starter.ENDING)  # until what we become handles them
    first = [
        _first(each, control, [other for other in inherited if other not in each.sockets])
        for each, control in zip(lives, theirs, strict=True)
    ]
    for each in inherited:
        each.set_inheritable(True)
    words = starter_command(theirs, lives, first)
    os.execv(words[0], words)  # noqa: S606 - our own Python, no shell


def _first(lives: Lives, control: socket.socket, others: Sequence[socket.socket]) -> int:
    """The process of a first life, whose line is handed over. ``others`` are open here and not its own."""
    ours, theirs = socket.socketpair()
    own = os.getpid()
    pid = os.fork()
    if pid == 0:
        _end_with(partial(_live, lives, theirs, own, (ours, *others)))
    theirs.close()
    starter.hand_over(control, ours)
    return pid


def _live(lives: Lives, sock: socket.socket, started_by: int, others: Sequence[socket.socket]) -> int:
    for each in others:
        each.close()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, starter.ENDING)
    with loading():
        entry: Entry = importlib.import_module(lives.command[1]).begin
    return entry(sock, started_by, lives.settings)


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
