"""The Python packages that a project needs, with their exact versions: what a build locks.

Written by `reuna.adapters.lock_files` from a lock of the project, or by `reuna.adapters.installed` from
what is installed; read by `reuna.wire.sbom`.
"""

from __future__ import annotations

import re

import msgspec


class Package(msgspec.Struct, frozen=True, omit_defaults=True):
    """One version of one package.

    ``name`` is normalised (PEP 503). ``marker`` says where it is needed, '' everywhere. ``archives``: the
    SHA-256 of the files that it may be installed from. ``files``: the digest of the files that were
    installed (`reuna.adapters.installed.digest_of_files`). ``needs``: names of other packages here;
    None when its lock does not say.
    """

    name: str
    version: str
    marker: str = ""
    archives: tuple[str, ...] = ()
    files: str = ""
    needs: tuple[str, ...] | None = None
    licence: str = ""


class Environment(msgspec.Struct, frozen=True, omit_defaults=True):
    """All of them, sorted. ``source`` is the lock's name in the project, or ``installed``.

    ``roots``: names that the project itself needs, None when the lock does not say; ``python``: the
    version that they were installed for, '' for a lock.
    """

    source: str
    packages: tuple[Package, ...]
    roots: tuple[str, ...] | None = None
    python: str = ""


def normalised(name: str) -> str:
    """A package's name as indexes compare it (PEP 503).

    >>> normalised("Ruamel.Yaml_clib")
    'ruamel-yaml-clib'
    """
    return re.sub(r"[-_.]+", "-", name).lower()
