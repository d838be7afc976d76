"""The project's own pytest, run as somebody would type it."""

from __future__ import annotations

import asyncio
import importlib.util
import time
from pathlib import Path

import pytest

from reuna.adapters.junit import PASSED, Case, Suite, merged
from reuna.core.errors import ExtraMissing, ProjectError
from reuna.fleet import own_tests
from reuna.fleet.own_tests import OwnTests, check_pytest, result, run_pytest


def run(folder: Path, text: str, **files: str) -> OwnTests:
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_it.py").write_text(text)
    for name, content in files.items():
        (folder / f"{name}.py").write_text(content)
    return asyncio.run(run_pytest(folder))


def test_what_passes_and_what_does_not_is_counted_and_kept(tmp_path: Path) -> None:
    found = run(tmp_path, "def test_a(): ...\ndef test_b(): assert 1 == 2\n")
    assert found.said == "1 passed, 1 failed"
    assert [case.name for case in found.bad] == ["test_b"]
    assert "assert 1 == 2" in found.printed
    assert b"test_b" in found.document


def test_the_projects_own_modules_can_be_imported(tmp_path: Path) -> None:
    found = run(tmp_path, "from mine import two\ndef test_a(): assert two == 2\n", mine="two = 2\n")
    assert not found.bad


def test_a_file_that_cannot_be_imported_fails(tmp_path: Path) -> None:
    found = run(tmp_path, "import nothing_of_that_name\n")
    assert found.said == "1 error"
    assert found.bad


def test_a_project_without_tests_does_not_fail(tmp_path: Path) -> None:
    found = run(tmp_path, "")
    assert (found.said, found.bad) == ("no test found", [])


@pytest.mark.parametrize("status", [1, 2])
def test_a_status_that_no_case_explains_fails_with_a_case_of_ours(tmp_path: Path, status: int) -> None:
    """As a plug-in's that finds the coverage too low."""
    late = f"def pytest_sessionfinish(session):\n    session.exitstatus = {status}\n"
    found = run(tmp_path, "def test_a(): ...\n", conftest=late)
    assert [case.message for case in found.bad] == [
        f"pytest ended with status {status}, though no test failed"
    ]
    assert found.said == "1 passed, 1 error"


def test_pytest_that_does_not_start_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
    with pytest.raises(ProjectError, match="(?s)status 4.*no-such-option"):
        asyncio.run(run_pytest(tmp_path))


def test_a_status_of_trouble_within_pytest_is_no_result() -> None:
    document = merged(None, Suite("pytest", [Case("a", PASSED)]))
    for status in (3, 4, -9):
        with pytest.raises(ProjectError, match=f"status {status}"):
            result(status, document, "")


def test_what_it_prints_is_kept_up_to_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_tests, "KEPT", 1000)
    found = run(tmp_path, "def test_a():\n    print('x' * 100_000)\n    assert False\n")
    assert len(found.printed) == 1000
    assert "1 failed" in found.printed


def test_a_python_without_pytest_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    check_pytest()
    monkeypatch.setattr(own_tests, "find_spec", lambda _name: None)
    assert importlib.util.find_spec("pytest") is not None
    with pytest.raises(ExtraMissing, match="need pytest") as missing:
        check_pytest()
    assert "--no-pytest" in missing.value.next_step


def test_whoever_gives_up_leaves_no_process(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import os, pathlib, subprocess, time\n"
        "def test_a():\n"
        "    inner = subprocess.Popen(['sleep', '600'])\n"
        "    pathlib.Path('pids.part').write_text(f'{os.getpid()} {inner.pid}')\n"
        "    os.rename('pids.part', 'pids')\n"
        "    time.sleep(600)\n"
    )

    async def give_up() -> list[int]:
        work = asyncio.ensure_future(run_pytest(tmp_path))
        while not (tmp_path / "pids").exists():
            assert not work.done()
            await asyncio.sleep(0.05)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        return [int(word) for word in (tmp_path / "pids").read_text().split()]

    for pid in asyncio.run(give_up()):
        end = time.monotonic() + 30
        while alive(pid):
            assert time.monotonic() < end
            time.sleep(0.05)


def alive(pid: int) -> bool:
    """Whether it still runs; one that ended and whose parent is gone may stay in the list for good."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return state.rpartition(")")[2].split()[0] not in {"Z", "X"}
