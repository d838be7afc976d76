"""One fleet, three versions: an edge of today, one of the protocol before (its real code), one two behind.

The code of the protocol before is taken out of git, and runs as its own processes with its own modules. The
edge two behind is today's code whose protocol numbers are written over: there was no protocol 0.
"""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import subprocess
import sys
import tarfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from reuna.adapters.register import Register
from reuna.core.errors import Unreachable
from reuna.fleet.client import Operator
from reuna.fleet.data import find_nodes, spread
from reuna.fleet.layout import PlaceFile, make_fleet
from reuna.fleet.open_project import open_settings
from reuna.fleet.place import command
from reuna.fleet.session import Job, prepare, sign_code, train
from reuna.fleet.supervise import Supervisor, log_path
from reuna.loop.train import OLDER
from reuna.wire import OLDEST, VERSION

pytestmark = [pytest.mark.system, pytest.mark.timeout(170)]
ROOT = Path(__file__).parents[2]
#: What a node of the protocol before can be asked.
PLAIN = ["round.packed=never", "round.feedback=false", "round.grid_bits=32", "round.grid_exponent=-24"]
#: The last commit that spoke each protocol.
LAST = {2: "136948a4b8dcb2390f9bfdb09c7b8b93273d690e"}


def code_of(protocol: int, to: Path) -> Path:
    """The package as it spoke that protocol."""
    done = subprocess.run(["git", "archive", LAST[protocol], "src/reuna"], cwd=ROOT, capture_output=True)
    if done.returncode != 0:
        pytest.skip(f"this clone has no commit {LAST[protocol][:12]}: {done.stderr.decode()}")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(to, filter="data")
    return to / "src"


def project_by(code: Path, folder: Path) -> None:
    """A project that both versions run: the older one's own, for its code may know less of the library."""
    script = "import sys; from pathlib import Path; from reuna.template import make_project\n"
    script += "make_project(Path(sys.argv[1]), sample=True)"
    env = {**os.environ, "PYTHONPATH": str(code)}
    subprocess.run([sys.executable, "-c", script, str(folder)], env=env, check=True, timeout=60)


def code_that_speaks(protocol: int, to: Path) -> Path:
    """Today's package with another number."""
    shutil.copytree(ROOT / "src" / "reuna", to / "reuna", ignore=shutil.ignore_patterns("__pycache__"))
    codec = to / "reuna" / "wire" / "codec.py"
    text = codec.read_text()
    changed = text.replace(f"VERSION = {VERSION}  #", f"VERSION = {protocol}  #")
    changed = changed.replace("OLDEST = VERSION - 1  #", f"OLDEST = {protocol}  #")
    assert changed.count(f" = {protocol}  #") == 2
    codec.write_text(changed)
    return to


class Mixed(Supervisor):
    """Some places run other code."""

    code: dict[str, Path]
    one: asyncio.Lock

    async def _spawn(self, place: PlaceFile) -> Any:
        first = self.code.get(place.name)
        path = os.pathsep.join([str(first)] * (first is not None) + [os.environ.get("PYTHONPATH", "")])
        started = mock.patch("reuna.fleet.supervise.command", command if first is None else by_the_cli)
        async with self.one:
            with mock.patch.dict(os.environ, PYTHONPATH=path), started:
                return await super()._spawn(place)


def by_the_cli(kind: str, file: Path) -> list[str]:
    """What starts a place in any version."""
    return [sys.executable, "-P", "-m", "reuna.cli", kind, "--settings", str(file)]


async def heard(operator: Operator, wanted: set[str]) -> None:
    async with asyncio.timeout(100):
        while True:
            try:
                if wanted <= set(await asyncio.to_thread(operator.nodes)):
                    return
            except Unreachable:
                pass
            await asyncio.sleep(0.1)


async def test_an_edge_one_protocol_behind_works_beside_one_of_today_and_one_two_behind_is_told_why_not(
    tmp_path: Path,
) -> None:
    before = code_of(VERSION - 1, tmp_path / "before")
    project_by(before, tmp_path / "pumps")
    nodes = find_nodes(tmp_path / "pumps" / "data")[:3]
    fleet = make_fleet(tmp_path / "fleet", "test", spread(nodes, 1))
    wanted = ["strategy.rounds=2", "round.quorum=0.6", "round.deadline_s=3", "run.local=false"]
    job = Job(
        tmp_path / "pumps", open_settings(tmp_path / "pumps", wanted + PLAIN), nodes, tmp_path / "runs", 1
    )
    wanted = ["strategy.rounds=1", "round.quorum=0.3", "round.deadline_s=3", "run.local=false"]
    encoded = replace(job, settings=open_settings(tmp_path / "pumps", wanted))
    sign_code(job, fleet, lambda _event: None)
    supervisor = Mixed(fleet)
    supervisor.one = asyncio.Lock()
    supervisor.code = {
        "pump-2": before,
        "pump-3": code_that_speaks(VERSION - 2, tmp_path / "long-before"),
    }
    assert OLDEST == VERSION - 1
    logs = {place.name: log_path(place) for place in fleet.places}
    events: list[dict[str, Any]] = []
    later: list[dict[str, Any]] = []
    try:
        await supervisor.start()
        operator = Operator.of(fleet)
        await heard(operator, {"fog-1", "pump-1", "pump-2"})
        spec, parts = await asyncio.to_thread(prepare, job, fleet, "r-1")
        await train(operator, spec, parts, job, events.append)
        spec, parts = await asyncio.to_thread(prepare, encoded, fleet, "r-2")
        await train(operator, spec, parts, encoded, later.append)
    finally:
        await supervisor.stop()
    closed = [event["fields"] for event in events if event["what"] == "round"]
    assert [fields["round"] for fields in closed] == [1, 2]
    for fields in closed:
        assert fields["took_part"] == 2
        assert all(name in fields["members"] for name in ("pump-1", "pump-2"))
        assert "pump-3" in fields["absent"]
    (fields,) = [event["fields"] for event in later if event["what"] == "round"]
    assert (fields["took_part"], "pump-1" in fields["members"]) == (1, True)
    assert f"pump-2: {OLDER}" in fields["absent"], "what it does not know it is not asked"
    with closing(Register(fleet.folder / "fog-1" / "state" / "register.sqlite")) as register:
        spoken = {name: protocol for name, (_, protocol) in register.last_spoken().items()}
    assert spoken == {"pump-1": VERSION, "pump-2": VERSION - 1, "pump-3": VERSION - 2}
    said = logs["fog-1"].read_text()
    assert (
        f"speaks protocol {VERSION - 2}, this place {OLDEST} to {VERSION}: bring it to this version" in said
    )
    assert said.count("refused: pump-3") == 1, "once, however often it says hello"
    assert "Traceback" not in "".join(path.read_text() for path in logs.values())
