"""Options of commands that take something that came down, and what they trust."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from reuna.fleet.targets import TargetFolder
    from reuna.trust.metadata import TrustState

From = Annotated[
    Path, typer.Option("--from", help="Folder with public/ and targets/: a fleet's trust folder or a copy.")
]
Root = Annotated[
    Path | None, typer.Option("--root", help="The fleet's root.json, brought by hand; needed the first time.")
]
Seen = Annotated[
    Path,
    typer.Option("--seen", help="Folder that remembers what was accepted; nothing older is taken."),
]
Node = Annotated[
    Path | None,
    typer.Option("--node", help="State folder of a node: trust what it has accepted, and nothing newer."),
]
FROM, SEEN = Path("trust"), Path("trust-seen")


def trusted(
    source: Path, root: Path | None, seen: Path, node: Path | None
) -> tuple[TrustState, TargetFolder]:
    """What is trusted now, and where bytes come from. Raises `KeyProblem`, `Untrusted`, `Corrupted`."""
    from reuna.adapters.trust_store import TrustStore
    from reuna.core.errors import KeyProblem
    from reuna.fleet.targets import TargetFolder, accept

    folder = TargetFolder(source)
    if node is None:
        return accept(TrustStore(seen), folder, root, time.time()), folder
    if not (node / "trust" / "state").is_file():
        raise KeyProblem(f"{node} has accepted no metadata", "Name the state folder of a node that has run.")
    state = TrustStore(node / "trust").state()
    assert state is not None
    return state, folder
