"""What the commands about releases say and ask about signatures."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reuna.cli.passphrase import passphrase
from reuna.cli.trusted import trusted

if TYPE_CHECKING:
    from reuna.fleet.signing import Mark
    from reuna.fleet.trust import Ceremony
    from reuna.wire.release import Release

TRUST = Path("trust")
Trust = Annotated[Path, typer.Option("--trust", help="The fleet's trust folder.")]
Secret = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        envvar="REUNA_PASSPHRASE_FILE",
        help="File with the passphrase of the key; asked for without it.",
    ),
]


Where = Annotated[
    list[str] | None,
    typer.Option("--where", help="A node or a site that it is signed for; may be repeated; all without it."),
]


def trust_folder(folder: Path) -> Path:
    """The folder again. Raises `KeyProblem` when it is none."""
    from reuna.core.errors import KeyProblem

    if not any((folder / "public").glob("*.root.json")):
        raise KeyProblem(
            f"{folder} is no trust folder of a fleet",
            "Name one with --trust, or begin with `reuna trust init`.",
        )
    return folder


def keys_at(folder: Path) -> bool:
    """Whether a release could be signed here."""
    from reuna.fleet.signing import has_keys

    return any((folder / "public").glob("*.root.json")) and has_keys(_ceremony(folder, None))


def sign_it(
    found: Release, file: Path, folder: Path, passphrase_file: Path | None, where: list[str] | None
) -> Mark:
    """Sign, and write it down in the folder's trail; what the folder says then."""
    from reuna.adapters.files import read_at_most
    from reuna.fleet.signing import KIND, mark_at, sign, target_name
    from reuna.fleet.trail import Trail
    from reuna.wire.release import MAX_RELEASE

    ceremony = _ceremony(folder, passphrase_file)
    about = found.manifest.about
    with Trail(folder).doing("trust.add", target_name(about.project, about.version), kind=KIND):
        sign(ceremony, found, read_at_most(file, MAX_RELEASE) or b"", where)
    return mark_at(folder, found.digest, time.time())


def judge(digest: str, source: Path, root: Path | None, seen: Path, node: Path | None, *, must: bool) -> Mark:
    """What is trusted here says of a release. Where nothing is, that is an error if it ``must`` be."""
    from reuna.fleet.signing import Mark, mark

    if not must and root is None and node is None and not (seen / "state").is_file():
        return Mark("unknown", why="nothing is trusted here yet: name the fleet's root.json with --root")
    state, _ = trusted(source, root, seen, node)
    return mark(state, digest, time.time())


def marks(mark: Mark) -> dict[str, str]:
    """For JSON."""
    return {"state": mark.state, "path": mark.path, "why": mark.why}


def words(mark: Mark, version: int, folder: Path) -> str:
    """One line for people, with what to do next."""
    why = f": {mark.why}" if mark.why else ""
    match mark.state:
        case "signed":
            return f"signed: {mark.path}"
        case "waits":
            staged = folder / "staged" / "targets.json"
            return (
                f"waits for signatures{why}\n"
                f"next: `reuna trust sign {staged} --key KEY` where the keys are, then `reuna trust publish`"
            )
        case "expired":
            return f"signed once, but no more{why}; next: `reuna trust renew release`"
        case "unknown":
            return f"signature not judged{why or f': {folder} is no trust folder of a fleet'}"
        case _:
            return f"not signed{why}; next: `reuna release sign {version} --trust FOLDER`"


def _ceremony(folder: Path, passphrase_file: Path | None) -> Ceremony:
    from reuna.fleet.trust import Ceremony

    return Ceremony(folder, time.time(), lambda path: secret(path, passphrase_file))


def secret(path: Path, file: Path | None) -> bytes:
    """The passphrase of a locked key. Raises `KeyProblem` where nobody can be asked."""
    from reuna.core.errors import KeyProblem

    if file is None and not sys.stdin.isatty():
        raise KeyProblem(
            f"{path} is locked, and nobody is here to be asked",
            "Name a file with the passphrase: --passphrase-file, or REUNA_PASSPHRASE_FILE.",
        )
    return passphrase(path, file)
