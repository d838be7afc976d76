"""The project's own pytest, as somebody would type it in the project's folder, and what came of it."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from reuna.adapters.junit import ERROR, FAILED, PASSED, SKIPPED, Case, read_cases
from reuna.core.errors import ExtraMissing, ProjectError
from reuna.fleet.aside import started

#: Statuses with which pytest says that nothing failed: all passed, or there was nothing to run.
GOOD = (0, 5)
#: Those with which it got as far as a result: some failed, or some could not be collected.
BAD = (1, 2)
KEPT = 20_000  #: characters of what pytest prints that are kept, the last ones


@dataclass(frozen=True)
class OwnTests:
    """What came of them: every case, what pytest printed, its JUnit document.

    ``beside`` is a case of ours for what fails and is no test of theirs, as a coverage that is too low.
    """

    tests: Sequence[Case]
    beside: Sequence[Case]
    printed: str
    document: bytes

    @property
    def cases(self) -> list[Case]:
        """All of them."""
        return [*self.tests, *self.beside]

    @property
    def seconds(self) -> float:
        """What the cases took together."""
        return sum(case.seconds for case in self.tests)

    def count(self, outcome: str) -> int:
        """How many ended so."""
        return sum(case.outcome == outcome for case in self.cases)

    @property
    def bad(self) -> list[Case]:
        """Those that failed or could not be run."""
        return [case for case in self.cases if case.outcome in {FAILED, ERROR}]

    @property
    def said(self) -> str:
        """In a few words: ``3 passed, 1 failed``."""
        counts = ((self.count(each), each) for each in (PASSED, FAILED, ERROR, SKIPPED))
        return ", ".join(f"{count} {word}" for count, word in counts if count) or "no test found"


def check_pytest() -> None:
    """Raises `ExtraMissing` where this Python has no pytest."""
    if find_spec("pytest") is None:
        raise ExtraMissing(
            f"the project's own tests need pytest, which {sys.executable} does not have",
            "Install it (`pip install pytest`), or leave them out: `reuna test --no-pytest`.",
        )


async def run_pytest(project: Path) -> OwnTests:
    """Run it in the project's folder. Raises `ProjectError` when it does not get as far as a result."""
    with tempfile.TemporaryDirectory(prefix="reuna-test-") as folder:
        file = Path(folder) / "junit.xml"
        command = (sys.executable, "-m", "pytest", "--junit-xml", str(file), "--color=no")
        async with started(*command, cwd=project) as process:
            out, err = await process.communicate()
        printed = (out + err).decode(errors="replace")[-KEPT:]
        document = file.read_bytes() if file.is_file() else b""
    return result(process.returncode, document, printed)


def result(status: int | None, document: bytes, printed: str) -> OwnTests:
    """What pytest's status and document say. Raises `ProjectError` when that is no result."""
    try:
        cases = read_cases(document)
    except ValueError:
        cases = None
    if cases is None or status not in {*GOOD, *BAD}:
        raise ProjectError(
            f"pytest ended with status {status} and no result:\n{printed.strip()[-800:]}",
            "Run `pytest` in the project's folder and correct what it says.",
        )
    told = any(case.outcome in {FAILED, ERROR} for case in cases)
    unsaid = Case("pytest", ERROR, f"pytest ended with status {status}, though no test failed", "pytest")
    return OwnTests(cases, [] if told or status in GOOD else [unsaid], printed, document)
