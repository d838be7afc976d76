"""A look at a node before a run, in a real worker: modules, contract, code, memory; nothing is trained."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from reuna.adapters.files import FileBlobs
from reuna.adapters.project import pack_bundle
from reuna.adapters.sandbox import SandboxLimits
from reuna.core.contract import Contract, Signal, as_settings
from reuna.core.readiness import Module, Needs
from reuna.core.records import Setting, Terms
from reuna.edge.workshop import RAN, WAITING, WorkerWorkshop
from reuna.wire import digest_bytes

MODEL = """
import json, pathlib
import numpy as np
from reuna import Dataset, Samples

def load(folder, settings):
    none = Samples(np.zeros((0, 1), np.float32), np.zeros(0, np.int64))
    return Dataset(Samples(np.ones((7, 1), np.float32), np.zeros(7, np.int64)), none, none)

class Never:
    def fit(self, *_):
        raise RuntimeError("it trained")

def learner(settings):
    return Never()
"""
NEEDS = Needs((Module("numpy"), Module("no_such_module"), Module("msgspec", "msgspec", "0.0.1")))
AGREED = as_settings(Contract(signals=(Signal("t", max=1.0),)))
SETTINGS: dict[str, Setting] = {"entry": "model", **AGREED}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A node's data, and a project."""
    for name in ("data", "project"):
        (tmp_path / name).mkdir()
    (tmp_path / "data" / "a.csv").write_text("t,other\n0.5,1\n0.6,2\n")
    (tmp_path / "project" / "model.py").write_text(MODEL)
    return tmp_path


@pytest.fixture
async def workshop(site: Path) -> AsyncIterator[WorkerWorkshop]:
    made = WorkerWorkshop(site / "state" / "work", site / "data", 60.0, SandboxLimits(), 0)
    yield made
    await made.close()


def bundle(site: Path) -> object:
    return FileBlobs(site / "blobs").put(pack_bundle(site / "project"))


async def test_code_that_may_run_is_loaded_with_its_data_and_not_trained(
    workshop: WorkerWorkshop, site: Path
) -> None:
    found = await workshop.look(bundle(site), SETTINGS, NEEDS, Terms())  # type: ignore[arg-type]
    assert (found.code, found.samples, found.weak) == ("", 7, False)
    assert (found.missing, found.other) == (("no_such_module",), ("msgspec",))
    assert {(line.rule, line.failed) for line in workshop.lines} >= {("range", 0)}
    assert 10 < found.peak_mib < found.address_mib
    assert found.free_mib is not None
    assert found.limit_mib == SandboxLimits().memory_mib
    assert not (site / "state" / "work" / RAN).exists()
    assert not (site / "state" / "work" / WAITING).exists()


async def test_of_code_that_may_not_run_no_line_is_read_and_the_data_are_counted_all_the_same(
    workshop: WorkerWorkshop, site: Path
) -> None:
    found = await workshop.look(None, SETTINGS, NEEDS, Terms())
    assert (found.code, found.samples) == ("", None)
    assert found.missing == ("no_such_module",)
    assert found.lines
    assert not list((site / "state" / "work" / "project").iterdir())


async def test_without_a_contract_and_code_the_data_are_not_opened(
    workshop: WorkerWorkshop, site: Path
) -> None:
    (site / "data" / "a.csv").write_bytes(b"\xff\xfe no table")
    found = await workshop.look(None, {"entry": "model"}, NEEDS, Terms())
    assert (found.code, found.lines) == ("", ())
    assert (await workshop.look(None, SETTINGS, NEEDS, Terms())).code == "R103"


async def test_code_that_cannot_be_loaded_says_so_and_the_counts_stay(
    workshop: WorkerWorkshop, site: Path
) -> None:
    (site / "project" / "model.py").write_text("import no_such_module")
    found = await workshop.look(bundle(site), SETTINGS, NEEDS, Terms())  # type: ignore[arg-type]
    assert found.code == "R102"
    assert found.lines == workshop.lines != ()


async def test_in_a_sandbox_that_is_too_weak_no_line_of_the_project_is_read(
    workshop: WorkerWorkshop, site: Path
) -> None:
    (site / "project" / "model.py").write_text("raise RuntimeError('a line of the project ran')")
    found = await workshop.look(bundle(site), SETTINGS, NEEDS, Terms(level=4))  # type: ignore[arg-type]
    assert (found.weak, found.code) == (True, "")


async def test_a_run_that_goes_on_has_its_own_code_again_after_a_look(
    workshop: WorkerWorkshop, site: Path
) -> None:
    blobs = FileBlobs(site / "blobs")
    first = blobs.put(pack_bundle(site / "project"))
    await workshop.open("r-1", first, SETTINGS, Terms())
    (site / "project" / "model.py").write_text(MODEL + "# another\n")
    other = blobs.put(pack_bundle(site / "project"))
    assert other.digest != first.digest
    await workshop.look(other, SETTINGS, NEEDS, Terms())
    await workshop.open("r-1", first, SETTINGS, Terms())
    assert digest_bytes(pack_bundle(site / "state" / "work" / "project")) == first.digest
