"""What an evidence folder claims: the SHA-256 of each of its files, as one in-toto statement. Pure.

    statement  in-toto Statement v1: subject = every file of the folder but the envelope; predicate = `About`
    envelope   `reuna.trust.envelope`, signed by the fleet's release keys or by keys that people name

The folder: docs/how-to/evidence.md. What is judged here is who signed and what was signed; the files are
held against it by `reuna.fleet.evidence`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Annotated

import msgspec

from reuna.core.errors import Untrusted
from reuna.core.foreign import UNREADABLE, shown
from reuna.trust import publish
from reuna.trust.envelope import STATEMENT, as_json, good_keys, open_envelope, payload_of, seal, write
from reuna.trust.metadata import begin, fleet_of, refresh, take
from reuna.trust.publish import Ring

PREDICATE = "urn:reuna:evidence:v1"
FORMAT = "reuna/evidence/v1"
ROLE = "targets"  #: whose keys sign what the fleet says of its releases
MAX_FILES = 300

_Text = Annotated[str, msgspec.Meta(max_length=200)]
_Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


class About(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which release the evidence is of; ``release`` is its SHA-256. ``made``: UTC, as the exporter says."""

    format: _Text
    project: _Text
    version: int
    release: _Sha256
    run: _Text
    made: _Text


class Judged(msgspec.Struct, frozen=True):
    """What was signed, and by whom: keys that count, and others whose signatures are good as well."""

    about: About
    files: dict[str, str]
    signed_by: tuple[str, ...]
    others: tuple[str, ...]


def state(about: About, files: Mapping[str, str]) -> bytes:
    """The envelope over files, name -> SHA-256; signed by nobody yet."""
    subjects = [{"name": name, "digest": {"sha256": digest}} for name, digest in sorted(files.items())]
    return seal(
        {
            "_type": STATEMENT,
            "subject": subjects,
            "predicateType": PREDICATE,
            "predicate": msgspec.to_builtins(about),
        }
    )


def judge(data: bytes, signers: Ring) -> Judged:
    """What an envelope says, signed by enough of ``signers``. Raises `Untrusted`.

    It must be written as we write it, to the byte, so that no changed byte of it is passed over.
    """
    envelope = open_envelope(data)
    about, files = _read(payload_of(envelope))
    keys = good_keys(envelope)
    if write(envelope) != data or open_envelope(state(about, files)).payload != envelope.payload:
        raise Untrusted("malformed", "it is not written as Reuna writes it")
    counted = tuple(key for key in keys if bytes.fromhex(key) in signers.keys)
    if len(counted) < signers.threshold:
        by = ", ".join(f"{key[:12]}…" for key in keys) or "nobody"
        raise Untrusted(
            "signature",
            f"it is signed by {by}; {signers.threshold} of the keys that are trusted must sign it",
        )
    return Judged(about, files, counted, tuple(key for key in keys if key not in counted))


def _read(payload: bytes) -> tuple[About, dict[str, str]]:
    try:
        said = json.loads(payload)
        for known, found in ((STATEMENT, said["_type"]), (PREDICATE, said["predicateType"])):
            if found != known:
                raise Untrusted("kind", f"it says {shown(found, 80)} where ours say {known}")
        listed = [(each["name"], each["digest"]["sha256"]) for each in said["subject"]]
        files = msgspec.convert(dict(listed), dict[_Text, _Sha256])
        about = msgspec.convert(said["predicate"], About)
        as_json([msgspec.to_builtins(about), files])  # what no UTF-8 can hold is no text
    except (KeyError, TypeError, AttributeError) as error:
        raise Untrusted("malformed", f"it lacks {shown(str(error))}") from error
    except (*UNREADABLE, msgspec.ValidationError, ValueError) as error:
        raise Untrusted("malformed", f"it cannot be read: {shown(str(error))}") from error
    if about.format != FORMAT:
        raise Untrusted("kind", f"it is of format {shown(about.format, 80)}, not {FORMAT}")
    if len(files) != len(listed) or len(files) > MAX_FILES:
        raise Untrusted("malformed", f"it names a file twice, or more than {MAX_FILES}")
    return about, files


class Roots(msgspec.Struct, frozen=True):
    """What a pinned root leads to: the newest root, its version, and who signs for releases."""

    version: int
    newest: bytes
    signers: Ring


def follow(pin: bytes, later: Iterable[bytes]) -> Roots:
    """Walk from a pinned root through later ones, each signed by the threshold of the one before.

    That a root's time is over does not count: evidence is looked at after years. Raises `Untrusted`.
    """
    step = refresh(begin(fleet_of(pin), pin), 0.0)
    for data in later:
        if publish.read("root", data).signed.version > step.state.root.version:
            step = take(step, data)
    newest = step.state.root
    return Roots(newest.version, newest.data, publish.rings("root", newest.data)[ROLE])


def named(keys: Collection[str], threshold: int) -> Ring:
    """Keys that a person names, 64 hexadecimal digits each."""
    return Ring(tuple(bytes.fromhex(key) for key in keys), threshold)
