"""Builds that a cloud keeps: handed over whole, named by digest or project, brought back whole."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from reuna.adapters.files import read_at_most, replace_file
from reuna.core.errors import BlobNotFound, RunProblem, Untrusted
from reuna.core.records import KeptBuild
from reuna.fleet.build import file_name
from reuna.fleet.built import provenance_of, read
from reuna.fleet.client import Operator
from reuna.trust.envelope import MAX_ENVELOPE
from reuna.trust.provenance import judge
from reuna.wire import build as wire

DIGEST = "sha256:"  #: before a build's digest, or at least its first 12 digits
_DIGITS = re.compile(r"[0-9a-f]{12,64}")


def push(operator: Operator, file: Path) -> str:
    """Let the cloud keep a build and the provenance beside it; its digest. Nothing is sent twice.

    Raises `Untrusted`, `NotUsable`.
    """
    build = read(file)
    known = {each.digest for each in operator.builds()}
    if build.digest not in known:
        operator.put_build(build.digest, wire.encode(build.manifest.project, build.parts))
    envelope = read_at_most(provenance_of(file), MAX_ENVELOPE)
    if envelope is not None:
        judge(envelope, build.digest, ())
        operator.put_provenance(build.digest, envelope)
    return build.digest


def named(kept: Sequence[KeptBuild], name: str) -> KeptBuild:
    """The one that is meant: ``sha256:`` and 12 digits or more, or a project, of which the newest.

    Raises `RunProblem`.
    """
    digits = name.removeprefix(DIGEST)
    if name.startswith(DIGEST) and not _DIGITS.fullmatch(digits):
        raise RunProblem(f"{name!r:.90} is no digest of a build", "Give sha256: and 12 to 64 digits of it.")
    if name.startswith(DIGEST):
        found = [each for each in kept if each.digest.startswith(digits)]
    else:
        found = sorted((each for each in kept if each.project == name), key=lambda each: each.at)[-1:]
    if len(found) > 1:
        raise RunProblem(
            f"{name} could be {', '.join(each.digest[:16] for each in found)}", "Give more digits."
        )
    if not found:
        raise RunProblem(
            f"there is no file {name!r:.90}, and the cloud keeps no build of that name",
            "Push it: `reuna build push FILE --fleet FLEET`. See which there are: `reuna build list`.",
        )
    return found[0]


def fetch(operator: Operator, digest: str, folder: Path) -> Path:
    """A build that the cloud keeps as a file in ``folder``, its provenance beside it.

    Raises `BlobNotFound`, `Untrusted` for one that is not whole.
    """
    data = operator.get_build(digest)
    build = wire.decode(data)
    if build.digest != digest:
        raise Untrusted("mismatch", f"the cloud sent build {build.digest[:12]}… for {digest[:12]}…")
    file = folder / file_name(build)
    replace_file(file, data)
    with suppress(BlobNotFound):  # nobody has handed one over
        replace_file(provenance_of(file), operator.get_provenance(digest))
    return file
