"""Parts of a simulated fleet in processes of this machine.

They are forked, so that learners and data are theirs without a copy, and nothing has to be pickled.
Models and bodies go through anonymous memory that is shared with the child: it has no name, so that
nothing is left of it, however a process ends. What is small goes through a pipe. A child ends with the
process that began it.
"""

from __future__ import annotations

import contextlib
import gc
import mmap
import multiprocessing
import os
import signal
import warnings
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import msgspec

from reuna.adapters.processes import end_with_parent
from reuna.core.records import RunSpec
from reuna.core.tree import edges_under, tops, tree_under
from reuna.learn.strategies import strategy
from reuna.sim.crew import Lost
from reuna.sim.part import Answer, Fault, Fogs, Part, Totals
from reuna.sim.storage import MemoryBlob

END_S = 5.0  #: real seconds that a process may take to end in good order


class Ask(msgspec.Struct, frozen=True):
    """A plan for a fog; its model, if it does not ride in it, is in the memory that goes down."""

    fog: str
    plan: bytes
    model: str = ""


class Reply(msgspec.Struct, frozen=True):
    """The answer; its body is in the memory that goes up."""

    manifest: bytes
    size: int
    fault: Fault | None = None


class _Hand:
    """One process, and the line to it."""

    def __init__(self, process: BaseProcess, line: Connection) -> None:
        self.process = process
        self.line = line
        self.busy = False


class ProcessHands:
    """The `Hands` of this machine. ``fogs`` of each place."""

    def __init__(self, fogs: Sequence[Fogs], spec: RunSpec) -> None:
        self._fogs = fogs
        self._over = spec.above
        self._size = spec.model_size
        self._context = multiprocessing.get_context("fork")
        self._hands: dict[int, _Hand] = {}
        self._down = mmap.mmap(-1, max(1, spec.model_size))
        self._held = ""  #: digest of the model that lies there
        self._up = [mmap.mmap(-1, largest_body(each, spec)) for each in fogs]

    def begin(self, place: int) -> None:
        self._drop(place)
        ours, theirs = self._context.Pipe()
        lines = [hand.line for hand in self._hands.values()] + [ours]
        process = self._context.Process(target=self._serve, args=(place, theirs, lines), daemon=True)
        with (
            warnings.catch_warnings()
        ):  # numpy's idle threads do not live on in the child, nor are they missed
            warnings.simplefilter("ignore", DeprecationWarning)
            process.start()
        theirs.close()
        self._hands[place] = _Hand(process, ours)

    def ask(self, place: int, fog: str, plan: bytes, model: MemoryBlob | None) -> None:
        if model is not None and model.digest != self._held:
            self._down[: model.size] = model.read(0, model.size)
            self._held = model.digest
        hand = self._hands[place]
        hand.busy = True
        with contextlib.suppress(OSError):  # who is lost is found by `wait`
            hand.line.send_bytes(msgspec.msgpack.encode(Ask(fog, plan, model.digest if model else "")))

    def wait(self, seconds: float) -> list[tuple[int, Answer | Lost]]:
        busy = {hand.line: place for place, hand in self._hands.items() if hand.busy}
        found: list[tuple[int, Answer | Lost]] = []
        for line in wait(list(busy), seconds):
            place = busy[line]  # type: ignore[index]  # only lines were given
            self._hands[place].busy = False
            found.append((place, self._answer(place)))
        return found

    def _answer(self, place: int) -> Answer | Lost:
        hand = self._hands[place]
        try:
            reply = msgspec.msgpack.decode(hand.line.recv_bytes(), type=Reply)
        except (EOFError, OSError):
            hand.process.join(END_S)
            return Lost(_how(hand.process.exitcode))
        return Answer(reply.manifest, self._up[place][: reply.size], reply.fault)

    def end(self) -> list[Totals]:
        found = []
        for hand in self._hands.values():
            with contextlib.suppress(OSError, EOFError):
                hand.line.send_bytes(b"")
                if hand.line.poll(END_S):
                    found.append(msgspec.msgpack.decode(hand.line.recv_bytes(), type=Totals))
        return found

    def kill(self) -> None:
        for place in list(self._hands):
            self._drop(place)
        for memory in (self._down, *self._up):
            memory.close()

    def _drop(self, place: int) -> None:
        hand = self._hands.pop(place, None)
        if hand is not None:
            hand.process.kill()
            hand.process.join()
            hand.process.close()
            hand.line.close()

    # --- in the child ------------------------------------------------------------------------

    def _serve(self, place: int, line: Connection, others: Sequence[Connection]) -> None:
        """Answer until the line ends. ``others`` are the parent's ends, of which the child has copies."""
        end_with_parent()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it, and ends us
        for other in others:
            other.close()
        gc.freeze()  # what came from the parent lives on: looking at it would only copy its pages
        part = Part(self._fogs[place], self._over)
        with contextlib.suppress(EOFError, OSError):
            while data := line.recv_bytes():
                line.send_bytes(self._work(part, place, data))
            line.send_bytes(msgspec.msgpack.encode(part.end()))
        os._exit(0)  # nothing of the parent's is to be tidied up here

    def _work(self, part: Part, place: int, data: bytes) -> bytes:
        ask = msgspec.msgpack.decode(data, type=Ask)
        model = MemoryBlob(self._down[: self._size], ask.model) if ask.model else None
        answer = part.answer(ask.fog, ask.plan, model)
        self._up[place][: len(answer.body)] = answer.body
        return msgspec.msgpack.encode(Reply(answer.manifest, len(answer.body), answer.fault))


def largest_body(fogs: Fogs, spec: RunSpec) -> int:
    """Bytes that a fog may hand over: a sum, or the updates of its edges one after the other."""
    if not strategy(spec.strategy).singly:
        return 8 * spec.params
    here = tops(fogs, spec.above)
    return 4 * spec.params * max(len(edges_under(tree_under(t, fogs, spec.above), t)) for t in here)


def _how(status: int | None) -> str:
    if status is not None and status < 0:
        return f"it was ended by {signal.Signals(-status).name}"
    return f"it ended with status {status}"
