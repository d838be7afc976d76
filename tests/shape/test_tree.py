"""What may stand in no file of ours: folders of one machine, unpinned requirements."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: Folders of one machine; spelled in parts, so that this file may stand.
FOREIGN = re.compile(rb"(?<![\w.$}-])/(?:" + rb"|".join([b"wo" + b"rk", b"ro" + b"ot"]) + rb")/[\w.]")
LOCK_LINE = re.compile(r"^(#.*|[a-z0-9][a-z0-9.-]*==\S+( ; .+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?)$")


def tracked() -> Iterator[Path]:
    """Every file that git would submit."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("no git here: only a checkout can be looked through")
    yield from (path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file())


def test_no_file_names_a_folder_of_the_machine_it_was_written_on() -> None:
    assert FOREIGN.search(b"see /" + b"work/main")
    found = [str(path.relative_to(ROOT)) for path in tracked() if FOREIGN.search(path.read_bytes())]
    assert not found


@pytest.mark.parametrize(
    "name",
    [
        "requirements.lock",
        "requirements-dev.lock",
        "benchmarks/peers/flower.lock",
        "benchmarks/peers/nvflare.lock",
    ],
)
def test_a_lock_pins_names_versions_and_hashes_and_nothing_else(name: str) -> None:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not LOCK_LINE.match(line)] == []


def test_both_locks_agree() -> None:
    pins = [
        dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE))
        for name in ("requirements.lock", "requirements-dev.lock")
    ]
    assert pins[0].items() <= pins[1].items()
