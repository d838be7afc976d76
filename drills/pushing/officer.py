"""The officers' process: reads the code that waits at each site, signs it, and hands the policies out.

    python -m drills.pushing.officer --desk DESK --fleet fleet.toml --repository BARE --commit COMMIT

DESK holds what nobody else has: `officer.key`, and the `code-1.key` of the fleet. Each step is the
command that a person would type. One machine stands for all here: policies are signed where the nodes
look for them, which on real sites is a copy away.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from drills.pushing.forge import git
from reuna.fleet.layout import open_fleet


def reuna(*words: str) -> str:
    """What the command says. Raises `CalledProcessError`."""
    command = [sys.executable, "-m", "reuna.cli", *words]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def approve(desk: Path, node: Path) -> str:
    """One site: look, then sign; the digest of the code."""
    found = json.loads(reuna("code", "review", str(node), "--json"))
    changed = [line for line in found["changes"] if line.startswith(("+", "-"))]
    print(f"{node.name}: {found['digest'][:12]}, {len(changed)} lines differ from {found['before'][:12]}")
    reuna(
        "code",
        "approve",
        found["digest"],
        "--policy",
        str(node / "policy.toml"),
        "--key",
        str(desk / "officer.key"),
    )
    return str(found["digest"])


def vouch(desk: Path, trust: Path, repository: Path, commit: str) -> None:
    """For the fleet: the code of a commit, taken from the repository, is its own."""
    with tempfile.TemporaryDirectory(prefix="reuna-officer-") as folder:
        project = Path(folder) / repository.stem
        git(Path(folder), "clone", "--quiet", str(repository), str(project))
        git(project, "checkout", "--quiet", "--detach", commit)
        reuna("trust", "add", str(project), "--kind", "code", "--folder", str(trust))
    print(
        reuna("trust", "sign", str(trust / "staged" / "code.json"), "--key", str(desk / "code-1.key")), end=""
    )
    print(reuna("trust", "publish", "--folder", str(trust)), end="")


def main() -> int:
    """All sites of the fleet, then its code role."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("desk", "fleet", "repository"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--commit", required=True)
    args = parser.parse_args()
    fleet = open_fleet(args.fleet)
    digests = {approve(args.desk, place.folder) for place in fleet.of("edge")}
    if len(digests) != 1:
        print(f"error: the sites have {len(digests)} different bundles before them", file=sys.stderr)
        return 1
    vouch(args.desk, Path(fleet.setting("trust")), args.repository, args.commit)
    return 0


if __name__ == "__main__":
    sys.exit(main())
