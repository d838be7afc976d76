"""Bugs planted on purpose: each replaces one piece of the real code by a wrong one.

`PLANTED` maps the bug's name to a context manager. A simulator that does not catch them would
prove nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest import mock

import numpy as np

from reuna.adapters import receiver
from reuna.cloud import train as cloud_train
from reuna.core.errors import Refused
from reuna.edge import train as edge_train
from reuna.exchange import egress, intake
from reuna.fog import train as fog_train
from reuna.learn import sums
from reuna.loop import train
from reuna.sim.journal import SimJournal
from reuna.sim.storage import MemorySpool

Plant = Callable[[], AbstractContextManager[Any]]
_count = itertools.count()


def replace(owner: Any, name: str, wrong: Any) -> Plant:
    """A plant that swaps one attribute."""
    return lambda: mock.patch.object(owner, name, wrong)


def _acknowledge_before_commit(self: Any) -> Any:
    return receiver.receipt_of(self._manifest)


def _commit_nothing_of_the_close(self: Any, row: Any, body: Any = None) -> None:
    self._rows[self.name] = row


def _unweighted(rows: Any) -> list[Any]:
    return [sums.Part(row, row.width, 1) for row in rows if row.kind != "report"]


def _partials_weighted_again(rows: Any) -> list[Any]:
    return [sums.Part(row, row.width, row.weight) for row in rows if row.kind != "report"]


def _never_kept(self: Any, plan: Any, digest: str) -> None:
    return None


def _seed_of_the_moment(seed: int, round: int, node: str) -> int:
    return next(_count)


def _seed_without_round(seed: int, round: int, node: str) -> int:
    return len(node) + seed


def _never_the_same(self: Any, peer: str, manifest: Any) -> None:
    raise Refused("conflict", "planted")


def _first_is_enough(children: Any, answered: Any) -> list[str]:
    return [] if set(children) & set(answered) else sorted(children)


def _drop_everything(self: Any, run: str, before_round: int, _right: Any = MemorySpool.drop) -> None:
    _right(self, run, before_round + 1)


def _float_fold(read: Any, parts: Any, params: int) -> Iterator[Any]:
    total = np.zeros(params, np.float16)
    for part in parts:
        total += (read(part, 0, params) * np.float64(part.multiplier) * 2.0**-24).astype(np.float16)
    yield (total.astype(np.float64) * 2.0**24).astype(np.int64)


async def _never_journalled(self: Any, name: str, work: Any) -> Any:
    return await work()


async def _at_once(work: Any, clock: Any, log: Any, told: Any = None, waits: Any = None) -> Any:
    return await work()


@contextmanager
def _momentum_lost_after_a_crash() -> Iterator[None]:
    right = cloud_train.Conductor._apply

    def wrong(self: Any, spec: Any, ask: Any, state: Any, rows: Any) -> Any:
        fresh = not hasattr(self, "warm")
        self.warm = True
        return right(self, spec, ask, {**state, "state": ""} if fresh else state, rows)

    with mock.patch.object(cloud_train.Conductor, "_apply", wrong):
        yield


@contextmanager
def _both(first: AbstractContextManager[Any], second: AbstractContextManager[Any]) -> Iterator[None]:
    with first, second:
        yield


PLANTED: dict[str, Plant] = {
    "acknowledged before it is committed": replace(
        receiver.SpoolReceiver, "commit", _acknowledge_before_commit
    ),
    "the close is not durable": replace(intake.Intake, "close", _commit_nothing_of_the_close),
    "weights are not multiplied": replace(train, "parts", _unweighted),
    "partials are weighted again": replace(train, "parts", _partials_weighted_again),
    "kept bytes are not sent again and training is not seeded": lambda: _both(
        mock.patch.object(egress.Egress, "_kept", _never_kept),
        mock.patch.object(edge_train, "work_seed", _seed_of_the_moment),
    ),
    "the seed forgets the round": replace(edge_train, "work_seed", _seed_without_round),
    "a doubled delivery is refused as a conflict": replace(
        intake.Intake, "_accepted_before", _never_the_same
    ),
    "a round closes when the first child answered": replace(train, "missing", _first_is_enough),
    "bodies are dropped before they are acknowledged": replace(MemorySpool, "drop", _drop_everything),
    "the sum is made of floats": replace(intake, "fold", _float_fold),
    "finished steps are not journalled": replace(SimJournal, "step", _never_journalled),
    "momentum is lost when the cloud restarts": _momentum_lost_after_a_crash,
    "a full disk ends the run": replace(cloud_train, "when_there_is_room", _at_once),
    "the fog never hands its partial over": replace(
        fog_train.Combiner, "_combine", lambda self, plan, data: _nothing()
    ),
}


async def _nothing() -> None:
    return None
