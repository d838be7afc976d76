"""``reuna backup``, ``restore``, ``upgrade``: a place's state as one file, and whether a version takes it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reuna.cli.output import as_json

if TYPE_CHECKING:
    from reuna.adapters.archive import Archive
    from reuna.core.backup import Marks
    from reuna.fleet.backup import Done, Progress
    from reuna.fleet.inventory import Place
    from reuna.fleet.restore import Restored, Target
    from reuna.fleet.upgrade import Finding

SettingsFile = Annotated[Path, typer.Argument(metavar="SETTINGS", help="cloud.toml, fog.toml or edge.toml.")]
BackupFile = Annotated[Path, typer.Argument(metavar="FILE", help="The backup's file.")]
Json = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


def backup(
    settings: SettingsFile,
    file: BackupFile,
    keys: Annotated[bool, typer.Option("--keys", help="Take the private keys in too.")] = False,
    dump: Annotated[
        Path | None,
        typer.Option("--dump", help="What pg_dump wrote, of a cloud with its tables in PostgreSQL."),
    ] = None,
    json: Json = False,
) -> None:
    """Copy what a place cannot make again into one file, while it runs."""
    from reuna.cloud.files import AUDIT
    from reuna.fleet.backup import back_up
    from reuna.fleet.trail import Trail

    place = _place(settings)
    if (place.state / AUDIT).is_file():
        Trail(place.state).note("place.backup", str(file), "allowed", keys="taken in" if keys else "left out")
    with _progress("copying", json) as progress:
        done = back_up(place, file, keys, progress, time.time(), dump)
    if json:
        as_json(_backup_dict(done))
    else:
        _say_backup(done, keys)


def restore(
    file: BackupFile,
    target: Annotated[
        Path | None,
        typer.Argument(
            metavar="SETTINGS|FOLDER", help="A settings file (*.toml), or a folder for the whole place."
        ),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Move aside what is there; nothing is removed.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Only compare every file in the backup with its digest.")
    ] = False,
    digest: Annotated[
        str, typer.Option("--digest", help="SHA-256 of the manifest, as `reuna backup` printed it.")
    ] = "",
    json: Json = False,
) -> None:
    """Bring a place back from its backup, once every digest in it is good."""
    from reuna.adapters.archive import open_archive
    from reuna.core.errors import Corrupted, SettingsError
    from reuna.fleet.older import notes
    from reuna.fleet.restore import check_free, verify
    from reuna.fleet.restore import restore as bring_back

    archive = open_archive(file)
    if digest and archive.digest != digest.lower():
        raise Corrupted(
            f"{file} is another backup: its digest is {archive.digest}", "Name the one you noted."
        )
    if check:
        with _progress("comparing", json) as progress:
            verify(archive, progress)
        _say_checked(archive, json)
        return
    if target is None:
        raise SettingsError(
            "where is it to be restored?", "Name a settings file or a folder, or give --check."
        )
    to = _target(archive, target)
    check_free(to, replace)
    with _progress("restoring", json) as progress:
        done = bring_back(archive, to, replace, progress, time.time())
    said = notes(done)
    if json:
        as_json(_restore_dict(done, said))
    else:
        _say_restored(done, said)


def upgrade(
    settings: SettingsFile,
    check: Annotated[
        bool, typer.Option("--check", help="Look whether this version can go on with what is there.")
    ] = False,
    json: Json = False,
) -> None:
    """Say which formats and versions a place has, and whether this version can go on with them.

    Changes nothing; what is older is brought up to date when the place starts. Exit status 0: it can; 1: not.
    """
    from reuna.core.errors import SettingsError
    from reuna.fleet.upgrade import check as look

    if not check:
        raise SettingsError(
            "nothing has to be upgraded by hand: a place does that when it starts",
            "Look first whether it can: `reuna upgrade --check SETTINGS`.",
        )
    found = look(_place(settings))
    if json:
        as_json({"ok": all(each.ok for each in found), "found": [_finding_dict(each) for each in found]})
    else:
        _say_found(found)
    raise typer.Exit(0 if all(each.ok for each in found) else 1)


# --- opening ---------------------------------------------------------------------------------------


def _place(settings: Path) -> Place:
    from reuna.fleet.inventory import TABLES, Place, kind_of
    from reuna.fleet.place import read_settings

    kind = kind_of(settings)
    return Place(kind, settings, read_settings(TABLES[kind], f"REUNA_{kind.upper()}_", settings, None))


def _target(archive: Archive, target: Path) -> Target:
    from reuna.core.errors import NotUsable
    from reuna.fleet.inventory import kind_of
    from reuna.fleet.restore import to_folder, to_settings

    manifest = archive.manifest
    if target.suffix != ".toml":
        return to_folder(manifest, target)
    if not target.exists():
        return to_settings(manifest, target, None)
    if (kind := kind_of(target)) != manifest.kind:
        raise NotUsable(f"the backup is of a {manifest.kind}, {target} of a {kind}", "Name its own settings.")
    return to_settings(manifest, target, _place(target).values)


# --- saying ----------------------------------------------------------------------------------------


@contextmanager
def _progress(what: str, quiet: bool) -> Iterator[Progress]:
    """A bar on standard error where it is a terminal, once it takes longer than a moment."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), DownloadColumn(binary_units=True), TimeRemainingColumn())
    off = quiet or not console.is_terminal
    with Bar(*columns, console=console, transient=True, disable=off) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _say_backup(done: Done, keys: bool) -> None:
    typer.echo(f"{done.file}: {len(done.manifest.files)} files, {_size(done.size)}; digest {done.digest}")
    if keys:
        typer.echo("It holds private keys: mode 0600. Whoever reads it can be this place.")
    left = [each for each in done.manifest.left_out if each.key]
    if left:
        typer.echo("Private keys are not in it; keep copies of your own:")
    for each in left:
        typer.echo(f"  {each.path}")
    for each in done.manifest.left_out:
        if not each.key:
            typer.echo(f"Left out: {each.path}, {each.why}")


def _backup_dict(done: Done) -> dict[str, object]:
    return {
        "file": str(done.file),
        "digest": done.digest,
        "files": len(done.manifest.files),
        "bytes": done.size,
        "keys": any(each.key for each in done.manifest.files),
        "left_out": [{"path": e.path, "why": e.why, "key": e.key} for e in done.manifest.left_out],
        "marks": _marks_dict(done.manifest.marks),
    }


def _marks_dict(marks: Marks) -> object:
    import msgspec

    return msgspec.to_builtins(marks)


def _say_checked(archive: Archive, json: bool) -> None:
    made, files = archive.manifest.made, len(archive.manifest.files)
    if json:
        as_json({"made": made, "digest": archive.digest, "files": files})
    else:
        typer.echo(f"good: {files} files of {made}; digest {archive.digest}")


def _say_restored(done: Restored, said: list[str]) -> None:
    typer.echo(f"{done.target.own}: {done.files} files of {done.manifest.made}")
    if done.aside is not None:
        typer.echo(f"What was there is now {done.aside}")
    for path in done.kept:
        typer.echo(f"Kept as it is: {path}")
    for name in done.carried:
        typer.echo(f"Taken over from what was there: {name}")
    for at in done.skipped:
        typer.echo(f"Not restored, the settings name no place for it: {at}")
    for sentence in said:
        typer.echo(f"- {sentence}")


def _restore_dict(done: Restored, said: list[str]) -> dict[str, object]:
    return {
        "made": done.manifest.made,
        "folder": str(done.target.own),
        "settings": str(done.target.settings),
        "files": done.files,
        "aside": str(done.aside) if done.aside else None,
        "kept": [str(path) for path in done.kept],
        "carried": done.carried,
        "missing_keys": [str(path) for path in done.missing],
        "skipped": done.skipped,
        "behind": done.behind,
        "marks": _marks_dict(done.marks),
        "notes": said,
    }


def _finding_dict(each: Finding) -> dict[str, object]:
    return {"what": each.what, "found": each.found, "known": each.known, "ok": each.ok, "why": each.why}


def _say_found(found: list[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from reuna.core.foreign import readable

    table = Table("", "what", "found", "this version", "why")
    for each in found:
        words = ("ok" if each.ok else "NO", each.what, each.found, each.known, each.why)
        table.add_row(*(Text(readable(word)) for word in words))
    Console().print(table)


def _size(count: int) -> str:
    from reuna.fleet.report import size

    return size(count)
