"""Keeps egress and reader running: ``python -I -S starter.py (FDS LONGEST FIRST COUNT WORD…)…``.

A place that gives up the network could start no egress again that has it. So this process, started
before, stays in the machine's network and does nothing else. For each of what it keeps it runs the COUNT
WORDs with one end of a new socket pair, hands the other end over the first of FDS to the place, and does it
again when that process ended; after a short life it waits twice as long as before, at most LONGEST seconds.
The others of FDS are sockets that this process alone inherits.
Where FIRST is no 0 it is the id of a child that lives already (`reuna.exchange.forked`): its first life.
What is started is fixed by its own command line; the place has no say in it afterwards. It ends with
its place, and on SIGTERM after the processes have put their things in order.

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
LOOK_S = 0.1  #: how often it looks who ended, while one waits for its next life
ENDING = {_signal.SIGTERM}


class Kept:
    """One of those that are kept running."""

    def __init__(
        self, control: _socket.socket, lent: list[int], longest_s: float, child: int, command: list[str]
    ) -> None:
        self.control = control
        self.lent = lent
        self.longest_s = longest_s
        self.child = child  #: its process, 0 while it waits for its next life
        self.command = command
        self.due = 0.0
        self._began = -STEADY_S
        self._wait_s = RESTART_S

    def begun(self, now: float) -> None:
        """Its next life begins."""
        self._began = now

    def ended(self, now: float) -> None:
        """Its life ended. The next one is due later each time that it was short."""
        self.child = 0
        self._wait_s = RESTART_S if now - self._began > STEADY_S else self._wait_s
        self.due = now + min(self._wait_s, self.longest_s)
        self._wait_s *= 2


def begin(kept: Kept) -> None:
    """One life of a process. Raises `BrokenPipeError` when the place is gone."""
    ours, theirs = _socket.socketpair()
    for number in (theirs.fileno(), *kept.lent):
        os.set_inheritable(number, True)
    arguments = [sys.executable, *_with_socket(kept.command, theirs.fileno())]
    _signal.pthread_sigmask(_signal.SIG_BLOCK, ENDING)  # none between its start and our knowing of it
    kept.child = os.posix_spawn(sys.executable, arguments, os.environ, setpgroup=0, setsigmask=())
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, ENDING)
    for number in kept.lent:
        os.set_inheritable(number, False)
    theirs.close()
    hand_over(kept.control, ours)


def hand_over(control: _socket.socket, ours: _socket.socket) -> None:
    """The place's end of a line, to the place. Raises `BrokenPipeError` when it is gone."""
    number = ours.fileno().to_bytes(4, sys.byteorder)
    control.sendmsg([b"."], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, number)])
    ours.close()


def _with_socket(command: list[str], number: int) -> list[str]:
    """The settings stay last: the number goes before them, and who we are."""
    return [*command[:-1], str(number), str(os.getpid()), command[-1]]


def next_end(wait: bool) -> int:
    """The id of a child that ended; 0 when none did, unless it is to ``wait``."""
    return os.waitpid(-1, 0 if wait else os.WNOHANG)[0]


def keep(
    all_kept: list[Kept],
    begin: Callable[[Kept], None] = begin,
    next_end: Callable[[bool], int] = next_end,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """One life after the other of each, until the place is gone."""
    while True:
        for each in all_kept:
            if not each.child and each.due <= now():
                each.begun(now())
                try:
                    begin(each)
                except BrokenPipeError:  # the place is gone
                    return 0
        lacking = [each for each in all_kept if not each.child]
        ended = next_end(not lacking) if len(lacking) < len(all_kept) else 0
        for each in all_kept:
            if ended and each.child == ended:
                each.ended(now())
        if lacking and not ended:
            left = max(0.0, min(each.due for each in lacking) - now())
            sleep(min(left, LOOK_S) if len(lacking) < len(all_kept) else left)


def end(all_kept: list[Kept]) -> None:
    """All that live, once they have put their things in order; one may have ended this very moment."""
    living = [each.child for each in all_kept if each.child]
    for child in living:
        try:
            os.kill(child, _signal.SIGTERM)
        except ProcessLookupError:
            continue
    for child in living:
        try:
            os.waitpid(child, 0)
        except ChildProcessError:
            continue


def told(words: list[str]) -> list[Kept]:
    """What is to be kept running, from our own command line; its descriptors are ours alone."""
    found = []
    while words:
        numbers, longest, first, count, *words = words
        control, *lent = map(int, numbers.split(","))
        for number in (control, *lent):
            os.set_inheritable(number, False)
        command, words = words[: int(count)], words[int(count) :]
        found.append(Kept(_socket.socket(fileno=control), lent, float(longest), int(first), command))
    return found


def main() -> int:
    """Entry of the process. Our ending signals may be blocked until here."""
    all_kept = told(sys.argv[1:])
    _signal.signal(_signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, ENDING)
        return keep(all_kept)
    finally:
        _signal.pthread_sigmask(_signal.SIG_BLOCK, ENDING)  # one more would not hurry them
        end(all_kept)


if __name__ == "__main__":
    sys.exit(main())
