"""A build that was made: written, signed, verified, taken apart, and where the code of a run comes from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from reuna.adapters.project import pack_bundle
from reuna.core.errors import KeyProblem, NotReproduced, NotUsable, SettingsError, Untrusted
from reuna.fleet import built
from reuna.fleet.build import Made, make
from reuna.fleet.built import (
    claimed,
    is_build,
    keys,
    provenance_of,
    read,
    sign,
    source_of,
    source_of_build,
    unpack,
    verify,
)
from reuna.fleet.code import packed
from reuna.fleet.open_project import open_settings
from reuna.wire import digest_bytes
from reuna.wire.build import encode, sha256
from tests.repositories import FILES, commit, git, repository, write

ANNA, OTTO = (Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2))


def public(key: Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes_raw().hex()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return repository(tmp_path / "pump")


@pytest.fixture
def file(project: Path, tmp_path: Path) -> Path:
    """A build, signed by Anna."""
    written = tmp_path / "out" / "pump.build.tar"
    built.write(make(project), written, ANNA)
    return written


# --- written and signed ---------------------------------------------------------------------------


def test_the_digest_of_a_build_is_the_sha256_of_its_file(file: Path, project: Path) -> None:
    assert sha256(file.read_bytes()) == read(file).digest == make(project).build.digest


def test_a_build_and_its_provenance_are_verified(file: Path, project: Path) -> None:
    found = verify(file, [public(ANNA)], project=project)
    assert (found.signed_by, found.others, found.rebuilt) == ((public(ANNA),), (), True)
    assert found.claim.commit == git(project, "rev-parse", "HEAD")
    assert found.claim.name == "pump.build.tar"


def test_a_second_engineer_signs_what_the_first_signed(file: Path) -> None:
    with pytest.raises(Untrusted, match="2 of the named keys must sign it"):
        verify(file, [public(ANNA), public(OTTO)], threshold=2)
    sign(file, OTTO)
    assert verify(file, [public(ANNA), public(OTTO)], threshold=2).signed_by == tuple(
        sorted((public(ANNA), public(OTTO)))
    )


def test_building_again_keeps_the_signatures_of_the_same_build(file: Path, project: Path) -> None:
    before = provenance_of(file).read_bytes()
    built.write(make(project), file)
    assert provenance_of(file).read_bytes() == before
    commit(project, {"detector/model.py": "x = 2\n"})
    built.write(make(project), file)
    assert verify(file).others == ()


def test_what_lies_there_and_is_no_provenance_is_written_over(file: Path, project: Path) -> None:
    provenance_of(file).write_text("no envelope")
    built.write(make(project), file)
    assert verify(file).claim.digest == read(file).digest


# --- refused --------------------------------------------------------------------------------------


def change(file: Path, edit: Callable[[bytes], bytes]) -> None:
    file.write_bytes(edit(file.read_bytes()))


def test_a_build_that_was_changed_is_neither_verified_nor_signed(file: Path) -> None:
    change(file, lambda data: data.replace(b"import numpy", b"import os   "))
    for act in (verify, lambda file: sign(file, OTTO), read):
        with pytest.raises(Untrusted, match=r"code\.zip is not the one that the build's manifest names"):
            act(file)


def test_another_build_of_good_form_is_not_the_one_that_was_signed(file: Path) -> None:
    found = read(file)
    parts = {**found.parts, "plan.json": found.parts["plan.json"].replace(b'"rounds":3', b'"rounds":9')}
    file.write_bytes(encode("pump", parts))
    with pytest.raises(Untrusted, match="the provenance is of the build"):
        verify(file)


def test_without_provenance_a_build_can_be_read_and_not_verified(file: Path) -> None:
    provenance_of(file).unlink()
    assert claimed(file) is None
    assert read(file)
    with pytest.raises(Untrusted, match="the build has no provenance"):
        verify(file)


def test_a_file_that_is_not_there_or_is_a_folder_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.tar", tmp_path):
        with pytest.raises(NotUsable, match="there is no file"):
            read(path)


@pytest.mark.parametrize("text", ["", "abc", "anna=" + "AB" * 32, "ab" * 31, "ab" * 33])
def test_what_is_no_public_key_is_named(text: str) -> None:
    with pytest.raises(KeyProblem, match="is no public key"):
        keys([text])


def test_keys_are_given_with_or_without_a_name_and_count_once() -> None:
    assert keys([public(ANNA), f"anna={public(ANNA)}", f"otto={public(OTTO)}"]) == (
        public(ANNA),
        public(OTTO),
    )


# --- built again ----------------------------------------------------------------------------------


def test_a_build_that_its_commit_does_not_give_is_found_with_the_part_that_differs(
    file: Path, project: Path
) -> None:
    made = make(project)
    forged = encode("pump", {**made.build.parts, "reuna.toml": b"[project]\nname = 'other'\n"})
    digest = sha256(forged)
    claim = msgspec.structs.replace(made.claim, digest=digest)
    built.write(Made(forged, made.build, claim), file)
    with pytest.raises(NotReproduced, match=r"gives another reuna\.toml here"):
        verify(file, project=project)


def test_what_is_installed_is_the_first_guess_where_a_project_has_no_lock(tmp_path: Path) -> None:
    project = repository(
        tmp_path / "a", {name: text for name, text in FILES.items() if name != "requirements.lock"}
    )
    made = make(project)
    parts = {
        **made.build.parts,
        "environment.json": made.build.parts["environment.json"].replace(b"3.", b"9."),
    }
    data = encode("pump", parts)
    built.write(
        Made(data, made.build, msgspec.structs.replace(made.claim, digest=sha256(data))), tmp_path / "x.tar"
    )
    with pytest.raises(NotReproduced, match=r"environment\.json") as refused:
        verify(tmp_path / "x.tar", project=project)
    assert "commit a lock" in refused.value.next_step


def test_a_dirty_build_cannot_be_built_again(project: Path, tmp_path: Path) -> None:
    write(project, {"detector/model.py": "x = 2\n"})
    built.write(make(project, dirty=True), tmp_path / "x.tar")
    with pytest.raises(NotReproduced, match="not those of commit"):
        verify(tmp_path / "x.tar", project=project)


# --- taken apart ----------------------------------------------------------------------------------


def test_a_project_is_made_again_from_its_build(file: Path, project: Path, tmp_path: Path) -> None:
    folder = tmp_path / "again"
    settings = unpack(read(file), folder)
    assert settings == open_settings(project, [])
    assert pack_bundle(folder) == pack_bundle(project)
    assert (folder / "reuna.toml").read_bytes() == (project / "reuna.toml").read_bytes()


def replan(file: Path, old: bytes, new: bytes) -> None:
    found = read(file)
    assert old in found.parts["plan.json"]
    file.write_bytes(encode("pump", {**found.parts, "plan.json": found.parts["plan.json"].replace(old, new)}))


def test_a_plan_that_this_reuna_would_read_otherwise_is_not_run(file: Path, tmp_path: Path) -> None:
    replan(file, b'"quorum":1.0', b'"quorum":0.5')
    with pytest.raises(SettingsError, match="reads quorum otherwise"):
        unpack(read(file), tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_plan_of_before_a_setting_was_added_is_run(file: Path, tmp_path: Path) -> None:
    replan(file, b'"quorum":1.0,', b"")
    assert unpack(read(file), tmp_path / "again").quorum == 1.0


def test_a_plan_with_a_setting_that_is_gone_is_not_run(file: Path, tmp_path: Path) -> None:
    replan(file, b'"quorum":1.0', b'"quorum":1.0,"warp":9')
    with pytest.raises(SettingsError, match="warp"):
        unpack(read(file), tmp_path / "again")


def test_a_plan_that_cannot_be_read_is_refused(file: Path, tmp_path: Path) -> None:
    for text in (b"[]", b"\xff", b"[" * 5000):
        found = read(file)
        file.write_bytes(encode("pump", {**found.parts, "plan.json": text}))
        with pytest.raises(Untrusted, match=r"plan\.json"):
            unpack(read(file), tmp_path / "again")


# --- for the code role ----------------------------------------------------------------------------


def test_the_code_of_a_build_is_signed_as_that_of_its_folder_is(file: Path, project: Path) -> None:
    assert is_build(file)
    assert packed(file) == packed(project)
    assert not is_build(project / "reuna.toml")
    assert not is_build(project)


# --- where the code of a run comes from ------------------------------------------------------------


def test_a_run_of_a_clean_checkout_names_its_commit(project: Path) -> None:
    git(project, "remote", "add", "origin", "https://anna:secret@git.example.org/pump.git")
    found = source_of(project)
    assert found.code == digest_bytes(pack_bundle(project))
    assert (found.commit, found.dirty) == (git(project, "rev-parse", "HEAD"), False)
    assert found.remote == "git+https://git.example.org/pump.git"


@pytest.mark.parametrize("name", ["detector/model.py", "detector/made.py", "reuna.toml", "requirements.lock"])
def test_a_run_of_anything_else_than_the_commit_is_dirty_also_if_git_ignores_it(
    project: Path, name: str
) -> None:
    commit(project, {".gitignore": "made.py\n"})
    assert not source_of(project).dirty
    write(project, {name: f"{FILES.get(name, '')!s}\n# more\n"})
    assert source_of(project).dirty


def test_a_run_of_a_commit_that_could_not_be_built_is_dirty(project: Path) -> None:
    (project / "detector" / "link.py").symlink_to("model.py")
    commit(project, {})
    assert source_of(project).dirty


def test_a_run_outside_of_a_repository_names_its_code_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    write(tmp_path / "a", FILES)
    found = source_of(tmp_path / "a")
    assert msgspec.to_builtins(found) == {"code": digest_bytes(pack_bundle(tmp_path / "a"))}


def test_a_run_of_a_build_names_it_and_what_its_provenance_claims(file: Path) -> None:
    build = read(file)
    found = source_of_build(build, claimed(file))
    assert (found.build, found.code, len(found.commit)) == (build.digest, build.manifest.code, 40)
    strange = msgspec.structs.replace(claimed(file), digest="00" * 32)  # type: ignore[type-var]
    assert source_of_build(build, strange).commit == source_of_build(build, None).commit == ""


def test_provenance_lies_beside_the_build_as_plain_json(file: Path) -> None:
    assert (
        json.loads(file.with_name("pump.build.tar.intoto.json").read_text())["payloadType"]
        == "application/vnd.in-toto+json"
    )
