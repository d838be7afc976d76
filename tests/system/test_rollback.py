"""The drill `rollback` in short, and the disk on which it cuts the power."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from drills.rollback import CUTS, held, spread

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]
SCRIPT = """
import os, sys
from pathlib import Path
from drills.cutting.disk import Disk
folder = Path(sys.argv[1])
Disk(folder, int(sys.argv[2]), sys.argv[3] == "lost", folder.parent / "moments").watch()
beside = folder / ".state.1.part"
fd = os.open(beside, os.O_WRONLY | os.O_CREAT)
while (data := b"the new state"[os.lseek(fd, 0, os.SEEK_CUR):]):
    os.write(fd, data)
if sys.argv[4] == "forced":
    os.fsync(fd)
os.close(fd)
os.replace(beside, folder / "state")
"""


def test_an_edge_whose_power_goes_in_mid_switch_comes_back_with_a_working_model() -> None:
    pytest.importorskip("onnxruntime")
    done = subprocess.run(
        [sys.executable, "-m", "drills.rollback", "--cuts", "2", "--json"],
        capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert held(result, 2)
    assert result["lost_writes"] == 1


def test_a_machine_that_does_not_come_back_fails_the_drill() -> None:
    good = dict.fromkeys(("cuts", "came_back", "verified", "working"), CUTS)
    assert held(good, CUTS)
    assert not any(held({**good, name: CUTS - 1}, CUTS) for name in good)


def test_cuts_are_spread_over_the_whole_switch_by_the_seed() -> None:
    found = spread(20, 75, random.Random(1))
    assert found == spread(20, 75, random.Random(1)) != spread(20, 75, random.Random(2))
    assert len(set(found)) == 20
    assert min(found) <= 4
    assert 70 <= max(found) <= 75
    assert set(spread(20, 7, random.Random(1))) == {1, 2, 3, 4, 5, 6, 7}


@pytest.mark.parametrize(
    ("mode", "forced", "left"),
    [("kill", "forced", b"the new state"), ("kill", "not", b"the new state"),
     ("lost", "forced", b"the old state"), ("lost", "not", b"the old state")],
)  # fmt: skip
def test_a_name_whose_folder_was_not_forced_is_the_one_before(
    tmp_path: Path, mode: str, forced: str, left: bytes
) -> None:
    (tmp_path / "slots").mkdir()
    (tmp_path / "slots" / "state").write_bytes(b"the old state")
    assert cut(tmp_path, "named", mode, forced) == -signal.SIGKILL
    assert (tmp_path / "slots" / "state").read_bytes() == left


@pytest.mark.parametrize(("mode", "left"), [("kill", b"the ne"), ("lost", b"")])
def test_bytes_that_were_not_forced_are_gone(tmp_path: Path, mode: str, left: bytes) -> None:
    (tmp_path / "slots").mkdir()
    assert cut(tmp_path, "written", mode, "not") == -signal.SIGKILL
    assert (tmp_path / "slots" / ".state.1.part").read_bytes() == left
    assert not (tmp_path / "slots" / "state").exists()


def cut(folder: Path, moment: str, mode: str, forced: str) -> int:
    """Begin the script, cut it at the first moment of that kind; how it ended."""
    words = [sys.executable, "-c", SCRIPT, str(folder / "slots")]
    trial = folder / "trial" / "slots"
    trial.mkdir(parents=True)
    subprocess.run([*words[:3], str(trial), "0", mode, forced], check=True, timeout=30)
    moments = (folder / "trial" / "moments").read_text().splitlines()
    at = next(number for number, each in enumerate(moments, 1) if each.endswith(moment))
    return subprocess.run([*words, str(at), mode, forced], check=False, timeout=30).returncode
