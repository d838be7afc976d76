"""Keeps an egress running: ``python -S -E starter.py FD COMMAND…``.

A place that gives up the network could start no egress again that has it. So this process, started
before, stays in the machine's network and does nothing else: it runs COMMAND with one end of a new
socket pair, hands the other end over FD to the place, and does it again when that process ended.
What is started is fixed by its own command line; the place has no say in it afterwards. It ends with
its place, and on SIGTERM after the egress has put its things in order.

It is there as long as the node is, so it imports little and nothing of ours: 4 MiB instead of 8.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time

RESTART_S = 0.2
ENDING = {signal.SIGTERM}


def run_once(control: socket.socket, command: list[str]) -> None:
    """One life of the egress."""
    ours, theirs = socket.socketpair()
    theirs.set_inheritable(True)
    arguments = [sys.executable, *_with_socket(command, theirs.fileno())]
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)  # none between its start and our knowing of it
    egress = os.posix_spawn(sys.executable, arguments, os.environ, setpgroup=0, setsigmask=())
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        theirs.close()
        socket.send_fds(control, [b"."], [ours.fileno()])
        ours.close()
        os.waitpid(egress, 0)
    except BaseException:
        _end(egress)
        raise


def _end(egress: int) -> None:
    """Once it has put its things in order; it may have ended this very moment."""
    try:
        os.kill(egress, signal.SIGTERM)
        os.waitpid(egress, 0)
    except (ProcessLookupError, ChildProcessError):
        return


def _with_socket(command: list[str], number: int) -> list[str]:
    """The settings stay last: the number goes before them, and who we are."""
    return [*command[:-1], str(number), str(os.getpid()), command[-1]]


def main() -> int:
    """Entry of the process."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    control, command = socket.socket(fileno=int(sys.argv[1])), sys.argv[2:]
    while True:
        try:
            run_once(control, command)
        except BrokenPipeError:  # the place is gone
            return 0
        time.sleep(RESTART_S)


if __name__ == "__main__":
    sys.exit(main())
