"""A build that a cloud keeps is named by digest or project, and comes back as it was handed over."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from reuna.adapters.clock import SystemClock
from reuna.adapters.trust_keys import new_key
from reuna.cloud.builds import Builds
from reuna.core.errors import BlobNotFound, Corrupted, RunProblem, Untrusted
from reuna.core.records import KeptBuild
from reuna.fleet.build import make
from reuna.fleet.built import provenance_of, verify, write
from reuna.fleet.client import Operator
from reuna.fleet.kept import fetch, named, push
from tests.repositories import repository


class Cloud:
    """The operator's calls about builds, straight on the cloud's store."""

    def __init__(self, folder: Path) -> None:
        self.kept = Builds(folder, SystemClock())
        self.sent: list[str] = []

    def builds(self) -> list[KeptBuild]:
        return self.kept.listed()

    def put_build(self, digest: str, data: bytes) -> None:
        self.sent.append(digest)
        self.kept.put(digest, data)

    def put_provenance(self, digest: str, envelope: bytes) -> None:
        self.kept.put_provenance(digest, envelope)

    def get_build(self, digest: str) -> bytes:
        return self.kept.get(digest)

    def get_provenance(self, digest: str) -> bytes:
        return self.kept.provenance(digest)


@pytest.fixture
def cloud(tmp_path: Path) -> Any:
    return Cloud(tmp_path / "cloud")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write(make(repository(tmp_path / "pump")), tmp_path / "x.tar")
    return tmp_path / "x.tar"


def test_a_build_comes_back_whole_with_its_provenance_and_is_sent_once(
    cloud: Any, file: Path, tmp_path: Path
) -> None:
    digest = push(cloud, file)
    assert push(cloud, file) == digest
    assert cloud.sent == [digest]
    (tmp_path / "back").mkdir()
    back = fetch(cloud, digest, tmp_path / "back")
    assert verify(back).claim == verify(file).claim
    assert back.read_bytes() == file.read_bytes()


def test_a_build_without_provenance_is_kept_and_one_that_comes_later_is_told(
    cloud: Any, file: Path, tmp_path: Path
) -> None:
    beside = provenance_of(file).read_bytes()
    provenance_of(file).unlink()
    digest = push(cloud, file)
    assert (cloud.builds()[0].commit, cloud.builds()[0].signed_by) == ("", ())
    assert not provenance_of(fetch(cloud, digest, tmp_path)).exists()
    provenance_of(file).write_bytes(beside)
    push(cloud, file)
    assert len(cloud.builds()[0].commit) == 40


def test_signatures_are_told_and_a_bad_one_is_refused(cloud: Any, file: Path) -> None:
    key = new_key()
    write(make(file.parent / "pump"), file, key)
    digest = push(cloud, file)
    assert cloud.builds()[0].signed_by == (key.public_key().public_bytes_raw().hex(),)
    with pytest.raises(Untrusted):
        cloud.put_provenance(digest, provenance_of(file).read_bytes().replace(b'"sig":"', b'"sig":"A'))


def test_what_is_not_what_it_is_called_is_not_kept(cloud: Any, file: Path) -> None:
    with pytest.raises(Corrupted, match="not abab"):
        cloud.put_build("ab" * 32, file.read_bytes())
    with pytest.raises(Untrusted):
        cloud.put_build("ab" * 32, file.read_bytes()[:-1024])
    with pytest.raises(BlobNotFound, match="keeps no build"):
        cloud.put_provenance("ab" * 32, provenance_of(file).read_bytes())
    for strange in ("ab" * 32, "../../ca/authority", ""):
        with pytest.raises(BlobNotFound):
            cloud.get_build(strange)
        with pytest.raises(BlobNotFound):
            cloud.get_provenance(strange)
    assert cloud.builds() == []


def test_a_build_that_was_changed_on_the_disk_is_said_to_be(cloud: Any, file: Path, tmp_path: Path) -> None:
    digest = push(cloud, file)
    kept = tmp_path / "cloud" / f"{digest}.build.tar"
    kept.write_bytes(kept.read_bytes()[:-1] + b"x")
    with pytest.raises(Corrupted, match="changed"):
        cloud.get_build(digest)
    kept.unlink()
    assert cloud.builds() == []
    push(cloud, file)
    assert cloud.get_build(digest) == file.read_bytes(), "it is sent again"


def test_another_build_than_asked_for_is_refused(cloud: Any, file: Path, tmp_path: Path) -> None:
    push(cloud, file)
    cloud.get_build = lambda _digest: file.read_bytes()
    with pytest.raises(Untrusted, match="the cloud sent"):
        fetch(cast("Operator", cloud), "ab" * 32, tmp_path)


KEPT = [
    KeptBuild("a" * 12 + "1" * 52, "pump", "c" * 64, 5, 30.0),
    KeptBuild("a" * 12 + "2" * 52, "pump", "c" * 64, 5, 20.0),
    KeptBuild("b" * 64, "fan", "c" * 64, 5, 10.0),
]


def test_a_build_is_named_by_its_digest_or_as_the_newest_of_its_project() -> None:
    assert named(KEPT, "pump") == KEPT[0]
    assert named(KEPT, "fan") == KEPT[2]
    assert named(KEPT, "sha256:" + "b" * 12) == KEPT[2]
    assert named(KEPT, "sha256:" + KEPT[1].digest) == KEPT[1]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("sha256:" + "a" * 12, "could be"),
        ("sha256:" + "a" * 11, "is no digest"),
        ("sha256:" + "A" * 64, "is no digest"),
        ("sha256:" + "c" * 12, "keeps no build of that name"),
        ("no-such-file.tar", "there is no file"),
    ],
)
def test_a_name_that_says_too_little_or_nothing_is_one_clear_message(name: str, said: str) -> None:
    with pytest.raises(RunProblem, match=said):
        named(KEPT, name)
