"""``reuna build`` as a person and a script use it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from reuna.adapters.project import pack_bundle
from reuna.cli import app, run
from reuna.core.errors import ProjectError, ReunaError, SettingsError, Untrusted
from reuna.fleet.built import read
from reuna.template import make_project
from reuna.wire.build import encode
from tests.repositories import commit, git, repository, write


@pytest.fixture(autouse=True)
def nobody_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REUNA_BUILDER", "REUNA_PASSPHRASE_FILE"):
        monkeypatch.delenv(name, raising=False)


def reuna(*words: str | Path, **environ: str) -> str:
    """What the command prints. Raises what it raises."""
    done: Result = CliRunner(env=environ).invoke(app, [str(word) for word in words])
    if done.exception is not None:
        raise done.exception
    return done.output


def as_json(*words: str | Path, **environ: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(reuna(*words, "--json", **environ))
    return found


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return repository(tmp_path / "pump")


def test_a_build_is_made_without_a_word_and_named_by_its_digest(project: Path) -> None:
    said = reuna("build", project)
    (file,) = (project / "dist").glob("*.tar")
    digest = read(file).digest
    assert file.name == f"pump-{digest[:12]}.build.tar"
    for word in (digest, git(project, "rev-parse", "HEAD"), "environment.json", "1 packages", str(file)):
        assert word in said


def test_the_project_here_is_built_when_none_is_named(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    assert as_json("build")["digest"] == as_json("build", ".")["digest"] == as_json("build", "make")["digest"]


def test_a_folder_that_is_called_as_a_command_is_built_by_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository(tmp_path / "show")
    monkeypatch.chdir(tmp_path)
    assert as_json("build", "./show")["project"] == "pump"


def test_what_is_printed_as_json_has_digests_parts_and_provenance(project: Path, tmp_path: Path) -> None:
    made = as_json("build", project, "--output", tmp_path / "x.tar", REUNA_BUILDER="https://ci.example.org/4")
    shown = as_json("build", "show", tmp_path / "x.tar")
    assert shown == {name: value for name, value in made.items() if name != "provenance"}
    assert made["provenance_says"]["builder"] == "https://ci.example.org/4"
    assert made["parts"]["plan.json"]["size"] > 0
    assert made["packages"] == 1


def test_a_key_signs_and_verifying_asks_for_it(project: Path, tmp_path: Path) -> None:
    named = reuna("policy", "key", "anna", "--out", tmp_path / "anna.key").strip()
    other = reuna("policy", "key", "otto", "--out", tmp_path / "otto.key").strip()
    file = tmp_path / "x.tar"
    assert ", signed" in reuna("build", project, "--output", file, "--key", tmp_path / "anna.key")
    assert named.partition("=")[2] in reuna("build", "verify", file, "--signer", named)
    assert "which no --signer names" in reuna("build", "verify", file)
    with pytest.raises(Untrusted, match="1 of the named keys must sign it"):
        reuna("build", "verify", file, "--signer", other)
    assert "reuna build verify" in reuna("build", "sign", file, "--key", tmp_path / "otto.key")
    found = as_json(
        "build",
        "verify",
        file,
        "--signer",
        named,
        "--signer",
        other,
        "--threshold",
        "2",
        "--project",
        project,
    )
    assert (len(found["signed_by"]), found["signed_by_others"], found["rebuilt"]) == (2, [], True)


def test_a_locked_key_signs_with_its_passphrase(project: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("correct horse\n")
    words = ("--passphrase-file", tmp_path / "secret")
    reuna("policy", "key", "anna", "--out", tmp_path / "anna.key", "--lock", *words)
    assert ", signed" in reuna("build", project, "--key", tmp_path / "anna.key", *words)


def test_an_unsigned_build_says_that_nobody_signed(project: Path, tmp_path: Path) -> None:
    reuna("build", project, "--output", tmp_path / "x.tar")
    said = reuna("build", "verify", tmp_path / "x.tar", "--project", project)
    assert "signed by   nobody" in said
    assert "rebuilt     the same bytes" in said


def test_a_dirty_build_shows_it(project: Path, tmp_path: Path) -> None:
    write(project, {"detector/model.py": "x = 2\n"})
    with pytest.raises(ProjectError, match="not as in commit"):
        reuna("build", project)
    assert not (project / "dist").exists()
    assert "changes that are in no commit" in reuna(
        "build", project, "--dirty", "--output", tmp_path / "x.tar"
    )


def test_a_build_without_provenance_or_with_that_of_another_is_shown_as_such(
    project: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "a.tar", tmp_path / "b.tar"
    reuna("build", project, "--output", first)
    commit(project, {"detector/model.py": "x = 2\n"})
    reuna("build", project, "--output", second)
    Path(f"{second}.intoto.json").replace(f"{first}.intoto.json")
    assert "provenance  of another build" in reuna("build", "show", first)
    assert "provenance  none beside it" in reuna("build", "show", second)


def test_a_build_whose_lock_cannot_be_read_is_no_crash(project: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.tar"
    reuna("build", project, "--output", file)
    for text in (b"7", b"{}", b"\xff", b"[" * 5000):
        file.write_bytes(encode("pump", {**read(file).parts, "environment.json": text}))
        with pytest.raises(Untrusted, match=r"environment\.json"):
            reuna("build", "show", file)


def test_another_commit_is_built_by_its_name(project: Path) -> None:
    before = as_json("build", project)
    git(project, "tag", "v1")
    commit(project, {"detector/model.py": "x = 2\n"})
    assert as_json("build", project, "--commit", "v1")["digest"] == before["digest"]


def test_a_project_is_made_again_from_a_build(project: Path, tmp_path: Path) -> None:
    reuna("build", project, "--output", tmp_path / "x.tar")
    reuna("build", "unpack", tmp_path / "x.tar", tmp_path / "again")
    assert pack_bundle(tmp_path / "again") == pack_bundle(project)
    with pytest.raises(ProjectError, match="is not empty"):
        reuna("build", "unpack", tmp_path / "x.tar", tmp_path / "again")


def test_the_code_of_a_build_can_be_signed_for_the_fleet(project: Path, tmp_path: Path) -> None:
    reuna("build", project, "--output", tmp_path / "x.build.tar")
    (tmp_path / "secret").write_text("correct horse\n")
    reuna(
        "trust",
        "init",
        "--fleet",
        "line",
        "--keys",
        "1",
        "--threshold",
        "1",
        "--folder",
        tmp_path / "trust",
        "--passphrase-file",
        tmp_path / "secret",
    )
    reuna(
        "trust",
        "add",
        tmp_path / "x.build.tar",
        "--kind",
        "code",
        "--folder",
        tmp_path / "trust",
        "--passphrase-file",
        tmp_path / "secret",
    )
    shown = reuna("trust", "show", "--folder", tmp_path / "trust", "--json")
    assert read(tmp_path / "x.build.tar").manifest.code in shown


# --- run --------------------------------------------------------------------------------------------


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What would have been run; each with what its folder held."""
    seen: list[Any] = []
    monkeypatch.setattr(run, "_carry_out", lambda job, *_: seen.append((job, pack_bundle(job.project))))
    return seen


@pytest.fixture
def pumps(tmp_path: Path) -> Path:
    folder = tmp_path / "pumps"
    make_project(folder, sample=True)
    git(folder, "init", "--quiet", ".")
    commit(folder, {})
    return folder


def test_a_build_is_run_exactly_and_the_result_names_it(
    pumps: Path, tmp_path: Path, jobs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = as_json("build", pumps, "--output", tmp_path / "x.tar")
    write(pumps, {"detector/model.py": "x = (", "reuna.toml": "["})
    monkeypatch.setenv("REUNA_STRATEGY_ROUNDS", "99")
    reuna("run", "--build", tmp_path / "x.tar", "--data", pumps / "data")
    ((job, code),) = jobs
    assert code == read(tmp_path / "x.tar").parts["code.zip"]
    assert job.settings.rounds == 20
    assert job.named == str(tmp_path / "x.tar")
    assert job.notes["source"] == {
        "code": made["code"],
        "commit": git(pumps, "rev-parse", "HEAD"),
        "build": made["digest"],
    }
    assert not job.project.exists(), "what was unpacked for the run is gone"


def test_a_build_is_run_without_other_settings(pumps: Path, tmp_path: Path, jobs: list[Any]) -> None:
    reuna("build", pumps, "--output", tmp_path / "x.tar")
    with pytest.raises(SettingsError, match="a build is run as it is"):
        reuna("run", "--build", tmp_path / "x.tar", "--data", pumps / "data", "--rounds", "2")
    assert not jobs


def test_a_run_of_a_folder_names_commit_and_whether_it_was_changed(pumps: Path, jobs: list[Any]) -> None:
    reuna("run", pumps)
    write(pumps, {"detector/extra.py": "x = 1\n"})
    reuna("run", pumps)
    clean, changed = (job.notes["source"] for job, _ in jobs)
    assert clean["commit"] == changed["commit"] == git(pumps, "rev-parse", "HEAD")
    assert ("dirty" in clean, changed["dirty"]) == (False, True)


def test_a_damaged_build_is_not_run(pumps: Path, tmp_path: Path, jobs: list[Any]) -> None:
    reuna("build", pumps, "--output", tmp_path / "x.tar")
    data = bytearray((tmp_path / "x.tar").read_bytes())
    data[3000] ^= 1
    (tmp_path / "x.tar").write_bytes(data)
    with pytest.raises(ReunaError) as refused:
        reuna("run", "--build", tmp_path / "x.tar", "--data", pumps / "data")
    assert isinstance(refused.value, Untrusted)
    assert not jobs
