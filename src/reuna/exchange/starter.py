"""Keeps an egress running: ``python -m reuna.exchange.starter FD COMMAND…``.

A place that gives up the network could start no egress again that has it. So this process, started
before, stays in the machine's network and does nothing else: it runs COMMAND with one end of a new
socket pair, hands the other end over FD to the place, and does it again when that process ended.
What is started is fixed by its own command line; the place has no say in it afterwards. It ends with
its place, and on SIGTERM after the egress has put its things in order.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time

from reuna.adapters.processes import end_with_parent

RESTART_S = 0.2


def run_once(control: socket.socket, command: list[str]) -> None:
    """One life of the egress."""
    ours, theirs = socket.socketpair()
    with subprocess.Popen(
        [sys.executable, *_with_socket(command, theirs.fileno())],
        pass_fds=(theirs.fileno(),),
        stdin=subprocess.DEVNULL,
        preexec_fn=end_with_parent,  # noqa: PLW1509 - this process has no other thread
    ) as process:
        try:
            theirs.close()
            socket.send_fds(control, [b"."], [ours.fileno()])
            ours.close()
            process.wait()
        finally:
            process.terminate()


def _with_socket(command: list[str], number: int) -> list[str]:
    """The settings stay last: the number goes before them."""
    return [*command[:-1], str(number), command[-1]]


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
