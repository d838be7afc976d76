"""What the harnesses share."""

from __future__ import annotations

import asyncio
import atexit
import importlib
import pkgutil
import shutil
import tempfile
from collections.abc import Callable, Coroutine, Iterable
from functools import cache
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from reuna.core.errors import ADMISSION, DISTRUST, NotAdmitted, PeerError, ReunaError, Untrusted
from reuna.core.records import Contribution, Event, Grid, Hello, Member, Plan, Receipt, RunSpec

T = TypeVar("T")
LONGEST = 2_000  #: characters of what is said about a peer's bytes; it goes to logs and to other nodes
_WORDS: dict[type[ReunaError], dict[str, str]] = {Untrusted: DISTRUST, NotAdmitted: ADMISSION}


class Harness(Protocol):
    """A module of `fuzz.parsers`."""

    def seeds(self) -> Iterable[bytes]: ...
    def check(self, data: bytes) -> None: ...


def names() -> list[str]:
    """Every target."""
    folder = Path(__file__).parent / "parsers"
    return sorted(module.name for module in pkgutil.iter_modules([str(folder)]))


def harness(name: str) -> Harness:
    """The target of that name."""
    return cast("Harness", importlib.import_module(f"fuzz.parsers.{name}"))


def attempt(work: Callable[[], T], *refusals: type[ReunaError]) -> T | None:
    """What ``work`` returns, None when it raised one of ``refusals``, well said.

    A refusal has a short message that can be written down, and a reason that is documented.
    """
    try:
        return work()
    except refusals as error:
        error.message.encode()
        if isinstance(error, PeerError):
            assert len(error.message) <= LONGEST, f"{len(error.message)} characters are said"
        known = _WORDS.get(type(error))
        assert known is None or getattr(error, "reason", "") in known, error
        return None


@cache
def scratch() -> Path:
    """A folder for this process, in memory where there is one; it goes when the process ends."""
    memory = Path("/dev/shm")  # noqa: S108 # mkdtemp makes a private folder in it
    folder = Path(tempfile.mkdtemp(prefix="reuna-fuzz-", dir=memory if memory.is_dir() else None))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def _runner() -> asyncio.Runner:
    return asyncio.Runner()


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, on one loop for all inputs."""
    return _runner().run(work)


# --- records to begin with -----------------------------------------------------------------------

DIGEST = "ab" * 32
MEMBER = Member("edge-1", 10, DIGEST, {"loss": 0.5, "accuracy": 0.75}, 1)
PLAN = Plan(
    run="r-20261123-100000-abcd",
    round=1,
    attempt=1,
    task="train",
    model=DIGEST,
    model_size=100,
    params=4,
    cohort=("edge-1", "edge-2"),
    quorum=2,
    deadline_s=60.0,
    grid=Grid(32, -24),
    max_weight=100,
    capacity=2,
    seed=7,
    bundle=DIGEST,
    bundle_size=10,
    settings={"rate": 0.5, "name": "x", "deep": True, "steps": 3},
    inline=b"model",
)
UPDATE = Contribution(
    run=PLAN.run,
    round=1,
    attempt=1,
    sender="edge-1",
    plan=DIGEST,
    kind="update",
    params=4,
    width=4,
    weight=10,
    digest=DIGEST,
    size=16,
    members=(MEMBER,),
)
RECEIPT = Receipt(PLAN.run, 1, 1, "edge-1", DIGEST)
EVENT = Event("fog-1", "b1", 1, 1.5, "round", PLAN.run, 1, {"loss": 0.5, "who": "edge-1", "ok": True})
HELLO = Hello("fog-1", "b1", "0.1.0", ("edge-1", "edge-2"))
SPEC = RunSpec(
    run=PLAN.run,
    project="pump",
    task="fault-classification",
    metric="all",
    rounds=3,
    strategy="fedavg",
    fogs={"fog-1": ("edge-1", "edge-2")},
    model=DIGEST,
    model_size=100,
    params=4,
    bundle=DIGEST,
    bundle_size=10,
    settings={"rate": 0.5},
)
MESSAGES = (PLAN, UPDATE, RECEIPT, EVENT, HELLO, SPEC)
