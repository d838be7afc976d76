"""`reuna.adapters.project.unpack_bundle`: a zip of code from the cloud stays inside its folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from fuzz.kit import attempt, scratch
from reuna.adapters.project import pack_bundle, unpack_bundle
from reuna.core.errors import ProjectError


def seeds() -> Iterator[bytes]:
    folder = scratch() / "project"
    (folder / "detector").mkdir(parents=True, exist_ok=True)
    (folder / "reuna.toml").write_text('[project]\nname = "pump"\n', encoding="utf-8")
    (folder / "detector" / "model.py").write_text("x = 1\n" * 50, encoding="utf-8")
    yield pack_bundle(folder)


def check(data: bytes) -> None:
    home = scratch() / "bundles"
    into = home / "unpacked"
    shutil.rmtree(home, ignore_errors=True)
    into.mkdir(parents=True)
    attempt(lambda: unpack_bundle(data, into), ProjectError)
    assert list(home.iterdir()) == [into]
    assert not any(path.is_symlink() for path in into.rglob("*"))
