"""Passphrases of keys: from a file's first line, or asked for and not shown."""

from __future__ import annotations

from pathlib import Path

import typer


def passphrase(key: Path, file: Path | None) -> bytes:
    """The passphrase of a key. Raises `KeyProblem`."""
    if file is not None:
        return first_line(file)
    entered: str = typer.prompt(f"passphrase of {key.name}", hide_input=True, err=True)
    return entered.encode()


def new_passphrase(file: Path | None) -> bytes:
    """A passphrase for keys that are made now. Raises `KeyProblem`."""
    if file is not None:
        return first_line(file)
    entered: str = typer.prompt(
        "passphrase for the new keys", hide_input=True, confirmation_prompt=True, err=True
    )
    return entered.encode()


def first_line(file: Path) -> bytes:
    """What a file's first line says. Raises `KeyProblem`."""
    from reuna.core.errors import KeyProblem

    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise KeyProblem(
            f"cannot read the passphrase in {file}: {error.strerror}",
            "Name a file that is there, with the passphrase on its first line.",
        ) from error
    if not lines or not lines[0]:
        raise KeyProblem(f"{file} holds no passphrase", "Write it on the first line.")
    return lines[0]
