"""The site's policy on a node's disk: the file that officers put there, and what was accepted before.

policy.toml, policy.sig    where the officers put them; replaced together or one after the other
FOLDER/policy              floor and text of the policy accepted last, replaced as a whole

``FOLDER/policy`` begins with the SHA-256 of the rest, so a damaged file is never read as an empty
one, which would forget who may sign and which serial was in force.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import msgspec

from reuna.adapters.files import replace_file, storage_error
from reuna.core.errors import Corrupted, KeyProblem, SettingsError
from reuna.trust.policy import MAX_POLICY, Policy, Signers
from reuna.trust.policy_sign import (
    MAX_SIGNATURE_FILE,
    Accepted,
    Floor,
    Rejected,
    Signature,
    Verdict,
    parse_signatures,
    verify,
)
from reuna.trust.policy_text import parse

_HASH = 32


class InForce(msgspec.Struct, frozen=True):
    """The policy a node goes by, None when nothing may leave; ``problem`` says what is wrong, or ''."""

    policy: Policy | None
    digest: str = ""
    signed_by: tuple[str, ...] = ()
    problem: str = ""


class _Kept(msgspec.Struct, frozen=True):
    floor: Floor
    text: str = ""


class PolicyStore:
    """One node's policy. ``file`` is its ``policy.toml``; one process writes ``folder``."""

    def __init__(self, file: Path, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._file = file
        self._kept = folder / "policy"
        self._paths = (str(file), os.path.splitext(file)[0] + ".sig", str(self._kept))  # noqa: PTH122

    def pin(self, site: str, signers: Signers) -> None:
        """Tell a new node who signs its policy, at its enrolment. Raises `KeyProblem`, `DiskFull`.

        The same again does nothing; other signers only come with a policy that the old ones signed.
        """
        if not 1 <= signers.threshold <= len(signers.keys):
            raise KeyProblem(
                f"{signers.threshold} of {len(signers.keys)} signers cannot be asked to sign",
                "Name the signers with `reuna policy init --signer`.",
            )
        kept = self._load()
        if kept is None:
            self._save(_Kept(Floor(site, signers)))
        elif (kept.floor.site, kept.floor.signers) != (site, signers):
            raise KeyProblem(
                f"this node belongs to {kept.floor.site} already and knows who signs its policy",
                "Let the signers it knows sign a policy that names the new ones.",
            )

    def site(self) -> str:
        """The site that this node was told at its enrolment; empty before. Raises `Corrupted`."""
        kept = self._load()
        return kept.floor.site if kept else ""

    def floor(self) -> Floor | None:
        """What a new policy is held against, None before the enrolment. Raises `Corrupted`."""
        kept = self._load()
        return kept.floor if kept else None

    def version(self) -> tuple[tuple[int, int], ...]:
        """Changes whenever the policy's files do: inode and time (ns) of each."""
        policy, signatures, kept = self._paths
        return _stamp(policy), _stamp(signatures), _stamp(kept)  # asked before anything leaves

    def load(self, now: float) -> InForce:
        """What is in force at ``now``, seconds since the epoch; durable before it is returned.

        A new file that is not accepted leaves the policy before it in force, while that lasts. A
        file that was taken away leaves none. Raises `Corrupted`, `DiskFull`.
        """
        kept = self._load()
        if kept is None:
            return InForce(None, problem=self._unpinned())
        text: str | None = ""
        verdict: Verdict
        try:
            text = _read(self._file, MAX_POLICY)
            if text is None:
                return InForce(None, problem=f"there is no file {self._file}")
            policy = parse(text, self._file.name)
            verdict = verify(policy, read_signatures(self._file), kept.floor, now)
        except SettingsError as error:
            verdict = Rejected("malformed", error.message)
        if isinstance(verdict, Accepted):
            self._save(_Kept(verdict.floor, text or ""))
            return _in_force(verdict)
        return self._before(kept, verdict, now)

    def _unpinned(self) -> str:
        return (
            "this node was not told yet who may sign its policy: reuna policy pin "
            f"{self._file} --folder {self._kept.parent}"
        )

    def _before(self, kept: _Kept, refused: Rejected, now: float) -> InForce:
        """The policy accepted last, when it still holds."""
        problem = f"{self._file.name} is not accepted: {refused.why}"
        if not kept.text:
            return InForce(None, problem=problem)
        policy = parse(kept.text, self._kept.name)
        verdict = verify(policy, (), kept.floor, now)
        if isinstance(verdict, Rejected):
            return InForce(None, problem=f"{problem}; before it: {verdict.why}")
        held = f"{problem}; serial {policy.serial} stays in force"
        return _in_force(verdict, held)

    def _save(self, kept: _Kept) -> None:
        data = msgspec.msgpack.encode(kept)
        data = hashlib.sha256(data).digest() + data
        if not self._kept.is_file() or self._kept.read_bytes() != data:
            replace_file(self._kept, data)

    def _load(self) -> _Kept | None:
        try:
            data = self._kept.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise storage_error(error, self._kept) from error
        if hashlib.sha256(data[_HASH:]).digest() != data[:_HASH]:
            raise _damaged(self._kept)
        try:
            return msgspec.msgpack.decode(data[_HASH:], type=_Kept)
        except msgspec.DecodeError as error:
            raise _damaged(self._kept) from error


def _in_force(accepted: Accepted, problem: str = "") -> InForce:
    floor = accepted.floor
    return InForce(accepted.policy, floor.digest, floor.signed_by, problem)


def is_stopped(policy: Policy) -> bool:
    """Whether the kill switch is on; also when that cannot be found out."""
    if not policy.kill_switch:
        return False
    try:
        os.lstat(policy.kill_switch)  # asked before anything leaves, without making a path
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def read_policy(file: Path) -> Policy:
    """A policy file, whoever signed it. Raises `SettingsError`."""
    text = _read(file, MAX_POLICY)
    if text is None:
        raise SettingsError(f"there is no file {file}", "Make one with `reuna policy init`.")
    return parse(text, file.name)


def read_signatures(file: Path) -> tuple[Signature, ...]:
    """The signatures beside a policy file; none without their file. Raises `SettingsError`."""
    beside = file.with_suffix(".sig")
    return parse_signatures(_read(beside, MAX_SIGNATURE_FILE) or "", beside.name)


def _read(path: Path, most: int) -> str | None:
    """A file's text, None when there is none; never more bytes than it may have, and one."""
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > most:
        raise SettingsError(f"{path.name} is longer than {most} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path.name} is no UTF-8 text: {error.reason} at byte {error.start}") from error


def _stamp(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)  # noqa: PTH116 - some times a round, without making paths
    except OSError:
        return 0, 0
    return status.st_ino, status.st_mtime_ns


def _damaged(path: Path) -> Corrupted:
    return Corrupted(
        f"{path} is damaged",
        "Remove it, pin the signers again and put the newest signed policy on this node.",
    )
