"""Keeps an egress or a reader running: ``python -S -E starter.py FD LONGEST FIRST COMMAND…``.

A place that gives up the network could start no egress again that has it. So this process, started
before, stays in the machine's network and does nothing else: it runs COMMAND with one end of a new
socket pair, hands the other end over FD to the place, and does it again when that process ended; after
a short life it waits twice as long as before, at most LONGEST seconds.
Where FIRST is no 0 it is the id of a child that lives already (`reuna.exchange.forked`): its first life.
What is started is fixed by its own command line; the place has no say in it afterwards. It ends with
its place, and on SIGTERM after the process has put its things in order.

It is there as long as the node is, so it imports little and nothing of ours: 3 MiB instead of 8. `_socket`
and `_signal` are what the standard library's modules are made of, without their enumerations: 1 MiB less.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # typeshed has no stub of it
import _socket
import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` and `collections.abc` cost memory that is held as long as the node is there
    from collections.abc import Callable

RESTART_S = 0.2
STEADY_S = 10.0  #: a life that was not short
ENDING = {_signal.SIGTERM}


def run_once(control: _socket.socket, command: list[str]) -> None:
    """One life of the process."""
    ours, theirs = _socket.socketpair()
    os.set_inheritable(theirs.fileno(), True)
    arguments = [sys.executable, *_with_socket(command, theirs.fileno())]
    _signal.pthread_sigmask(_signal.SIG_BLOCK, ENDING)  # none between its start and our knowing of it
    child = os.posix_spawn(sys.executable, arguments, os.environ, setpgroup=0, setsigmask=())
    try:
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, ENDING)
        theirs.close()
        hand_over(control, ours)
        os.waitpid(child, 0)
    except BaseException:
        _end(child)
        raise


def hand_over(control: _socket.socket, ours: _socket.socket) -> None:
    """The place's end of a line, to the place. Raises `BrokenPipeError` when it is gone."""
    number = ours.fileno().to_bytes(4, sys.byteorder)
    control.sendmsg([b"."], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, number)])
    ours.close()


def wait_for(child: int) -> None:
    """The end of a life that began before us. Our ending signals are blocked until here."""
    try:
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, ENDING)
        os.waitpid(child, 0)
    except BaseException:
        _end(child)
        raise


def _end(child: int) -> None:
    """Once it has put its things in order; it may have ended this very moment."""
    try:
        os.kill(child, _signal.SIGTERM)
        os.waitpid(child, 0)
    except (ProcessLookupError, ChildProcessError):
        return


def _with_socket(command: list[str], number: int) -> list[str]:
    """The settings stay last: the number goes before them, and who we are."""
    return [*command[:-1], str(number), str(os.getpid()), command[-1]]


def keep(
    control: _socket.socket,
    longest: float,
    command: list[str],
    live: Callable[[_socket.socket, list[str]], None] = run_once,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """One life after the other, until the place is gone."""
    wait = RESTART_S
    while True:
        began = now()
        try:
            live(control, command)
        except BrokenPipeError:  # the place is gone
            return 0
        wait = RESTART_S if now() - began > STEADY_S else wait
        sleep(min(wait, longest))
        wait *= 2


def main() -> int:
    """Entry of the process."""
    _signal.signal(_signal.SIGTERM, lambda *_: sys.exit(0))
    control = _socket.socket(fileno=int(sys.argv[1]))
    os.set_inheritable(control.fileno(), False)  # it is ours alone
    if first := int(sys.argv[3]):
        wait_for(first)
    return keep(control, float(sys.argv[2]), sys.argv[4:])


if __name__ == "__main__":
    sys.exit(main())
