"""Reads a project's ``reuna.toml`` together with environment and flags."""

from __future__ import annotations

import os
from pathlib import Path

from reuna.adapters.toml_file import read_toml
from reuna.core.errors import ProjectError
from reuna.core.project import PROJECT, ProjectSettings, project_settings
from reuna.core.settings import Source, environment, flags
from reuna.learn.strategies import TAKES


def open_settings(project: Path, pairs: list[str]) -> ProjectSettings:
    """The project's settings, checked. Raises `ProjectError`, `SettingsError`."""
    file = project / "reuna.toml"
    if not file.is_file():
        raise ProjectError(
            f"{project.absolute()} is no project: it has no reuna.toml", "Make one: `reuna init NAME`."
        )
    sources: list[Source] = [read_toml(file), environment(PROJECT, "REUNA_", os.environ), flags(pairs)]
    return project_settings(sources, TAKES)
