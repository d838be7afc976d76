"""Taking something that may come down: what is refused, and that it is taken without the guard in its way."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from reuna.adapters.trust_store import TrustStore
from reuna.core.errors import KeyProblem, Untrusted
from reuna.fleet.targets import TargetFolder, accept, fetch, listed
from reuna.trust import roles
from reuna.trust.metadata import TrustState
from reuna.trust.publish import DAY
from tests.unit.trust.house import NOW, House, key, thing

PUMP, DATA = "releases/pump", b"bytes"
EVIL = b"other bytes"


class Place:
    """A folder as the cloud has it, and one that remembers what was accepted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.house = House()
        self.publish()
        self.put(DATA)
        (folder / "root.json").write_bytes(self.house.pin)

    def publish(self) -> None:
        """Only the newest, as a thief would serve it."""
        (self.folder / "public").mkdir(exist_ok=True)
        for name, data in self.house.files.items():
            (self.folder / "public" / name).write_bytes(data)

    def put(self, data: bytes, digest: str = "") -> Path:
        (self.folder / "targets").mkdir(exist_ok=True)
        file = self.folder / "targets" / (digest or hashlib.sha256(data).hexdigest())
        file.write_bytes(data)
        return file

    def accept(self, now: float = NOW) -> TrustState:
        source = TargetFolder(self.folder)
        return accept(TrustStore(self.folder / "seen"), source, self.folder / "root.json", now)

    def take(self, path: str = PUMP, kind: str = "", now: float = NOW) -> bytes:
        return fetch(self.accept(now), TargetFolder(self.folder), path, now, kind)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def refused(place: Place, path: str = PUMP, kind: str = "", now: float = NOW) -> str:
    with pytest.raises(Untrusted) as caught:
        place.take(path, kind, now)
    return caught.value.reason


def test_what_the_fleet_has_signed_is_taken_and_nothing_is_without_a_root(place: Place) -> None:
    assert place.take() == DATA
    assert place.take(kind="release") == DATA
    with pytest.raises(KeyProblem, match="nothing is trusted"):
        accept(TrustStore(place.folder / "other"), TargetFolder(place.folder), None, NOW)


def test_what_is_listed_is_told_by_kind(place: Place) -> None:
    place.house.listed["targets"].append(thing("policy-templates/works", "policy-template"))
    place.house.list("targets")
    place.house.online()
    place.publish()
    state = place.accept()
    assert [each.path for each in listed(state, NOW, "policy-template")] == ["policy-templates/works"]
    assert [each.path for each in listed(state, NOW)] == [
        "code/detector", "plans/r-1", "policy-templates/works", PUMP,
    ]  # fmt: skip


def test_a_rollback_is_refused_and_taken_only_by_who_remembers_nothing(place: Place) -> None:
    before = dict(place.house.files)
    place.house.listed["targets"] = [thing(PUMP, "release", EVIL, 2)]
    place.house.list("targets")
    place.house.online()
    place.publish()
    place.put(EVIL)
    assert place.take() == EVIL
    place.house.files = before
    place.publish()
    for role in ("targets", "snapshot"):
        (place.folder / "public" / f"2.{role}.json").unlink()
    assert refused(place) == "version"
    fresh = accept(
        TrustStore(place.folder / "new"), TargetFolder(place.folder), place.folder / "root.json", NOW
    )
    assert fetch(fresh, TargetFolder(place.folder), PUMP, NOW) == DATA


def test_a_freeze_ends_with_the_timestamp(place: Place) -> None:
    assert place.take(now=NOW + 0.9 * DAY) == DATA
    assert refused(place, now=NOW + 1.1 * DAY) == "expired"


def test_files_that_do_not_belong_together_are_refused(place: Place) -> None:
    other = House()
    other.listed["targets"] = [thing(PUMP, "release", EVIL)]
    other.list("targets")
    (place.folder / "public" / "1.targets.json").write_bytes(other.newest["targets"])
    assert refused(place) in {"mismatch", "oversized"}


@pytest.mark.parametrize("signers", [["release-1"], ["online-1", "plans-1"], ["code-1", "code-2"]])
def test_a_release_below_its_roles_threshold_or_of_other_roles_is_refused(
    place: Place, signers: list[str]
) -> None:
    place.house.listed["targets"] = [thing(PUMP, "release", EVIL, 2)]
    place.house.list("targets", signers=[key(name) for name in signers])
    place.house.online()
    place.publish()
    place.put(EVIL)
    assert refused(place) == "signature"
    place.house.list("targets")  # the very same list, at its threshold
    place.house.online()
    place.publish()
    assert place.take() == EVIL


@pytest.mark.parametrize("path", ["releases/valve", "releases/../pump", "mirrors/pump", "../root.json", ""])
def test_what_no_role_names_is_refused(place: Place, path: str) -> None:
    assert refused(place, path) == "unknown"


def test_another_kind_than_was_asked_for_is_refused(place: Place) -> None:
    assert refused(place, kind="policy-template") == "kind"
    assert refused(place, "code/detector", kind="release") == "kind"


def test_tampered_bytes_are_refused_whatever_their_length(place: Place) -> None:
    digest = hashlib.sha256(DATA).hexdigest()
    for data, reason in ((b"bytez", "mismatch"), (b"byte", "mismatch"), (b"bytes ", "oversized")):
        place.put(data, digest)
        assert refused(place) == reason
    (place.folder / "targets" / digest).unlink()
    assert refused(place) == "missing"


def test_endless_data_is_read_to_its_limit_and_no_further(place: Place) -> None:
    file = place.put(DATA)
    os.truncate(file, 1 << 40)  # a terabyte of nothing, on no disk
    assert refused(place) == "oversized"
    os.truncate(place.folder / "public" / "timestamp.json", 1 << 40)
    assert refused(place) == "oversized"


def test_a_pipe_is_no_file(place: Place) -> None:
    file = place.put(DATA)
    file.unlink()
    os.mkfifo(file)
    assert refused(place) == "missing"


def test_a_target_over_the_limit_of_its_kind_is_not_read(place: Place) -> None:
    data = b"#" * (roles.KINDS["policy-template"].limit + 1)
    place.house.listed["targets"].append(thing("policy-templates/long", "policy-template", data))
    place.house.list("targets")
    place.house.online()
    place.publish()
    place.put(data)
    assert refused(place, "policy-templates/long") == "oversized"
