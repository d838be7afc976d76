"""What every test gets: one thread of linear algebra, examples that do not depend on the day, no pickles."""

from __future__ import annotations

import compileall
import os
import runpy
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Protocol, TypeVar

# Before numpy is first imported: as many test processes as cores, or more, and the same bits on every machine.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import pytest  # noqa: E402 - the threads are fixed first
from hypothesis import HealthCheck, settings  # noqa: E402 - as above

from tests.servers.postgresql import PostgresqlServer, running  # noqa: E402 - as above
from tests.servers.s3 import S3Server  # noqa: E402 - as above
from tests.servers.s3 import running as s3_running  # noqa: E402 - as above

# Shared machines stall: a slow example says nothing about the code, so there is no deadline.
settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# CI runs the same examples each time; a developer's runs look for new ones.
settings.register_profile("ci", parent=settings.get_profile("here"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")

ROOT = Path(__file__).parents[1]
COMPILED = ("src", "drills", "benchmarks")  #: folders of what the tests start as processes
# Loading a pickle fails in this process and, by PYTHONPATH, in those that tests start.
AUDIT = Path(__file__).parent / "audit"
_paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
if str(AUDIT) not in _paths:
    os.environ["PYTHONPATH"] = os.pathsep.join([str(AUDIT), *_paths])
_started_with: Mapping[str, Any] = vars(
    sys.modules.get("sitecustomize", object)
)  # as pytest-xdist's processes are
if "FOUND" not in _started_with:
    _started_with = runpy.run_path(str(AUDIT / "sitecustomize.py"))
UNPICKLED: list[str] = _started_with["FOUND"]


class Sortable(Protocol):
    """What is asked of a test to say where it comes."""

    @property
    def nodeid(self) -> str: ...

    def get_closest_marker(self, name: str) -> Any: ...


Test = TypeVar("Test", bound=Sortable)


@pytest.fixture(autouse=True)
def no_pickle() -> Iterator[None]:
    """A test in which a pickle was loaded fails, also when somebody swallowed the error."""
    yield
    found = list(UNPICKLED)
    UNPICKLED.clear()
    assert not found, f"pickles were loaded: {found}"


def pytest_configure(config: pytest.Config) -> None:
    """Once, not in each of the some thousand processes of ours that the tests start.

    Python leaves nothing compiled behind where PYTHONDONTWRITEBYTECODE is set, but takes what is there.
    """
    if not hasattr(config, "workerinput"):  # in a worker of pytest-xdist its parent did it
        for name in COMPILED:
            compileall.compile_dir(ROOT / name, quiet=2)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What pytest made of a module of tests is taken by the other workers and by the next run."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, False
    try:
        return (yield)
    finally:
        sys.dont_write_bytecode = before


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """Tests that ask for a server are marked, so that they can be run apart: `make test-storage`.

    Of what is left after ``-m``, each worker of pytest-xdist begins with its share of the long tests.
    """
    for item in items:
        if {"postgresql", "s3"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.servers)
    yield
    if hasattr(config, "workerinput"):
        items[:] = long_ones_first(items, config.workerinput["workercount"])


def long_ones_first(items: Sequence[Test], workers: int) -> list[Test]:
    """So that short ones are left for whoever is done before the others, and modules stay together.

    ``--dist worksteal`` first gives each worker as many tests as the others, in this order.
    """
    long: dict[str, list[Test]] = {}
    short: list[Test] = []
    for item in items:
        if item.get_closest_marker("system"):
            long.setdefault(item.nodeid.partition("::")[0], []).append(item)
        else:
            short.append(item)
    modules, ordered = list(long.values()), list[Test]()
    for number in range(workers):
        ordered += chain.from_iterable(modules[number::workers])
        room = max(0, len(items) * (number + 1) // workers - len(ordered))
        ordered += short[:room]
        short = short[room:]
    return ordered + short


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgresqlServer]:
    """One server for all tests of this process; `postgresql` gives each an empty database."""
    with running() as server:
        yield server


@pytest.fixture
def postgresql(postgresql_server: PostgresqlServer) -> PostgresqlServer:
    """A real PostgreSQL with an empty database; who stops it starts it again."""
    postgresql_server.fresh()
    return postgresql_server


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One server for all tests of this process; `s3` gives each an empty bucket."""
    with s3_running(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3(s3_server: S3Server) -> S3Server:
    """A real S3-compatible server with an empty bucket; who stops it starts it again."""
    s3_server.fresh()
    return s3_server
