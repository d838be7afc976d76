"""What a release says of its packages: a bill of materials, and where the build came from that was run.

A run of a build keeps it in its folder, so that its release has the packages that it was locked to:

    runs/RUN/code.build.tar                 the build
    runs/RUN/code.build.tar.intoto.json     what its builder claims, with the signatures that it had

A run of a folder has no lock of its own: the bill is made as `reuna build` makes it, of the folder's lock
or of what is installed.
"""

from __future__ import annotations

from pathlib import Path

from reuna.adapters.files import read_at_most, replace_file
from reuna.core.errors import NotReleased
from reuna.fleet.build import bill, environment_of, in_folder
from reuna.fleet.built import provenance_of, read
from reuna.trust.envelope import MAX_ENVELOPE
from reuna.trust.provenance import judge
from reuna.wire import digest_bytes
from reuna.wire.build import MAX_BUILD, SBOM
from reuna.wire.release import PROVENANCE

KEPT = "code.build.tar"


def keep_build(build: Path, run: Path) -> None:
    """Keep a build, and its provenance if it has one, in the folder of the run that ran it."""
    for source, kept, most in (
        (build, run / KEPT, MAX_BUILD),
        (provenance_of(build), provenance_of(run / KEPT), MAX_ENVELOPE),
    ):
        data = read_at_most(source, most)
        if data is not None:
            replace_file(kept, data, 0o644)


def papers(run: Path, project: Path, name: str, code: bytes) -> dict[str, bytes]:
    """The parts of a release that tell of its packages; ``code`` is the bundle that it carries.

    Raises `NotReleased` when the kept build is of other code, `Untrusted`, and as `environment_of`.
    """
    if not (run / KEPT).is_file():
        environment, _ = environment_of(in_folder(project))
        return {SBOM: bill(name, code, environment)}
    build = read(run / KEPT)
    if build.manifest.code != digest_bytes(code):
        raise NotReleased(
            f"{run / KEPT} is a build of other code than the run's", "Take the run as it was left."
        )
    found = {SBOM: build.parts[SBOM]}
    provenance = read_at_most(provenance_of(run / KEPT), MAX_ENVELOPE)
    if provenance is not None:
        judge(provenance, build.digest, ())
        found[PROVENANCE] = provenance
    return found
