"""Which files of a node's folder are its tables, by split, as docs/reference/data-folder.md has it."""

from __future__ import annotations

from pathlib import Path

from reuna.core.errors import DataError

SPLITS = ("train", "validation", "test")
KINDS = (".csv", ".parquet")


def folder_tables(folder: Path) -> dict[str, list[Path]]:
    """Files of the tables of a node's folder by split, see `reuna.adapters.tables`. Raises `DataError`."""
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}")
    found = {split: _files(folder / split) for split in SPLITS if (folder / split).is_dir()}
    loose = _files(folder)
    if loose and any(found.values()):
        raise DataError(
            f"{folder} has {loose[0].name} beside its folders {' and '.join(found)}",
            "Move it into one of them: it is not clear what it is for.",
        )
    if not any(found.values()):
        found = {"all": loose}
    if not any(found.values()):
        raise DataError(f"{folder} holds no CSV or Parquet file")
    return found


def _files(folder: Path) -> list[Path]:
    """Tables in a folder by name; hidden files are left alone."""
    return sorted(path for path in folder.iterdir() if path.suffix in KINDS and not path.name.startswith("."))
