"""The audit trail names the first line that is not as it was written."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from reuna.adapters.audit import AuditTrail
from reuna.core.errors import Corrupted


@pytest.fixture
def trail(tmp_path: Path) -> AuditTrail:
    made = AuditTrail(tmp_path / "audit.jsonl")
    for number in range(4):
        made.append(float(number), "anna", "session", "runs.submit", "allowed", target=f"run {number}")
    return made


def test_lines_come_back_in_order_and_from_any_one_on(trail: AuditTrail) -> None:
    assert [each["target"] for each in trail.read()] == ["run 0", "run 1", "run 2", "run 3"]
    assert [each["number"] for each in trail.read(2)] == [2, 3]
    assert trail.path.stat().st_mode & 0o777 == 0o600


def test_each_change_each_cut_and_each_swap_is_found_at_its_line(trail: AuditTrail) -> None:
    lines = trail.path.read_bytes().splitlines(keepends=True)
    wrong = {
        "line 2": [lines[0], lines[1].replace(b"anna", b"nobody"), *lines[2:]],
        "line 4": [*lines[:3], lines[3].replace(b"allowed", b"denied")],
        "line 1": lines[1:],
    }
    for said, changed in wrong.items():
        trail.path.write_bytes(b"".join(changed))
        with pytest.raises(Corrupted, match=f"{said} is not as it was written"):
            list(trail.read())
    trail.path.write_bytes(b"".join([lines[0], lines[2], lines[1], lines[3]]))
    with pytest.raises(Corrupted, match="line 2"):
        list(trail.read())


def test_a_line_that_a_crash_cut_is_cut_off_by_the_next(trail: AuditTrail) -> None:
    whole = trail.path.read_bytes()
    trail.path.write_bytes(whole + b'{"number": 4, "wh')
    trail.append(9.0, "ben", "session", "session.begin", "denied")
    assert trail.path.read_bytes().startswith(whole)
    assert [each["who"] for each in trail.read(3)] == ["anna", "ben"]


def test_many_writers_make_one_chain(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with ThreadPoolExecutor(8) as threads:
        for number in range(40):
            threads.submit(AuditTrail(path).append, 1.0, f"p{number}", "session", "self", "allowed")
    found = list(AuditTrail(path).read())
    assert sorted(each["who"] for each in found) == sorted(f"p{number}" for number in range(40))
