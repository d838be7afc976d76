"""Builds of real repositories: the same commit, the same bytes; what may not be in one is named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reuna.adapters.project import pack_bundle
from reuna.core.errors import ProjectError, ReunaError, SettingsError
from reuna.fleet.build import MAX_LOCK, assemble, make
from reuna.wire import digest_bytes
from reuna.wire.build import decode
from tests.repositories import FILES, LOCK, SETTINGS, commit, git, repository, write

BYTES = {name: text.encode() for name, text in FILES.items() if isinstance(text, str)}


def clone(of: Path, to: Path, *options: str) -> Path:
    git(of.parent, "clone", "--quiet", *options, f"file://{of}", str(to))
    return to


def part(folder: Path, name: str) -> Any:
    return json.loads(make(folder).build.parts[name])


# --- the same commit, the same bytes --------------------------------------------------------------


def test_two_clones_of_one_commit_give_the_same_bytes(tmp_path: Path) -> None:
    first = repository(tmp_path / "a")
    second = clone(first, tmp_path / "elsewhere" / "ä b", "--depth=1")
    write(second, {"data/pump-1/rows.csv": "1\n", "runs/r.json": "{}", ".env": "SECRET=1"})
    one, two = make(first), make(second)
    assert one.data == two.data
    assert one.claim == two.claim


@pytest.mark.parametrize("lock", [LOCK, None], ids=["with a lock", "with what is installed"])
def test_another_process_elsewhere_with_another_umask_and_language_gives_the_same_bytes(
    tmp_path: Path, lock: str | None
) -> None:
    files = {name: text for name, text in FILES.items() if name != "requirements.lock"}
    folder = repository(tmp_path / "a", files if lock is None else FILES)
    script = "import os, sys; os.umask(0o077); from pathlib import Path; from reuna.fleet.build import make; sys.stdout.write(make(Path(sys.argv[1])).build.digest)"
    environ = {
        **os.environ,
        "LC_ALL": "POSIX",
        "TZ": "Asia/Tokyo",
        "PYTHONHASHSEED": "7",
        "SOURCE_DATE_EPOCH": "1",
        "REUNA_STRATEGY_ROUNDS": "9",
    }
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == make(folder).build.digest


@settings(max_examples=20, suppress_health_check=list(HealthCheck))
@given(
    names=st.permutations(sorted(FILES)),
    times=st.lists(st.integers(0, 2**31), min_size=len(FILES), max_size=len(FILES)),
    mask=st.sampled_from([0o000, 0o022, 0o077]),
)
def test_neither_order_nor_times_nor_rights_of_files_change_the_bytes(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], times: list[int], mask: int
) -> None:
    before = os.umask(mask)
    try:
        folder = tmp_path_factory.mktemp("order") / "a"
        repository(folder, {name: FILES[name] for name in names})
        for name, time in zip(names, times, strict=True):
            os.utime(folder / name, (time, time))
        assert make(folder).data == EXPECTED
    finally:
        os.umask(before)


EXPECTED = assemble(
    {name: text for name, text in BYTES.items() if name not in {"README.md", "tests/test_model.py"}}
)


@given(st.permutations(sorted(BYTES)))
def test_a_build_is_a_function_of_the_files_bytes(names: list[str]) -> None:
    assert assemble({name: BYTES[name] for name in names}) == EXPECTED


def test_a_commit_that_changes_nothing_of_what_is_built_gives_the_same_build(tmp_path: Path) -> None:
    folder = repository(tmp_path / "a")
    first = make(folder)
    commit(folder, {"README.md": "another text\n", "tests/test_more.py": ""})
    second = make(folder)
    assert second.data == first.data
    assert second.claim.commit != first.claim.commit


@pytest.mark.parametrize("name", ["reuna.toml", "detector/model.py", "requirements.lock"])
def test_another_byte_in_what_is_built_gives_another_build(tmp_path: Path, name: str) -> None:
    folder = repository(tmp_path / "a")
    first = make(folder).build.digest
    commit(folder, {name: f"{FILES[name]!s}\n# more\n"})
    assert make(folder).build.digest != first


def test_another_commit_is_built_without_touching_the_folder(tmp_path: Path) -> None:
    folder = repository(tmp_path / "a")
    first = make(folder)
    commit(folder, {"detector/model.py": "x = 2\n"})
    write(folder, {"detector/model.py": "x = 3\n"})
    assert make(folder, first.claim.commit).data == first.data
    assert (folder / "detector" / "model.py").read_text() == "x = 3\n"


# --- what is in it --------------------------------------------------------------------------------


def test_the_code_is_the_bundle_that_sites_approve(tmp_path: Path) -> None:
    folder = repository(tmp_path / "a")
    build = make(folder).build
    assert build.parts["code.zip"] == pack_bundle(folder)
    assert build.manifest.code == digest_bytes(pack_bundle(folder))


def test_configuration_changes_the_build_and_not_the_code(tmp_path: Path) -> None:
    folder = repository(tmp_path / "a")
    first = make(folder).build
    commit(folder, {"reuna.toml": SETTINGS.replace("rounds = 3", "rounds = 4")})
    second = make(folder).build
    assert second.digest != first.digest
    assert second.manifest.code == first.manifest.code


def test_the_plan_has_every_setting_with_its_default(tmp_path: Path) -> None:
    plan = part(repository(tmp_path / "a"), "plan.json")
    assert (plan["rounds"], plan["settings"]["rate"], plan["strategy"], plan["quorum"]) == (
        3,
        0.5,
        "fedavg",
        1.0,
    )


def test_neither_the_environment_nor_what_lies_around_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = repository(tmp_path / "a", {**FILES, "data/rows.json": "[1]", ".env.json": "{}", "key.pem": "x"})
    monkeypatch.setenv("REUNA_STRATEGY_ROUNDS", "99")
    build = make(folder).build
    assert json.loads(build.parts["plan.json"])["rounds"] == 3
    with zipfile.ZipFile(BytesIO(build.parts["code.zip"])) as code:
        assert code.namelist() == ["detector/__init__.py", "detector/model.py"]


@pytest.mark.parametrize("name", ["pylock.toml", "uv.lock", "requirements.lock"])
def test_a_lock_comes_along_as_it_was_committed(tmp_path: Path, name: str) -> None:
    locks = {
        "pylock.toml": 'lock-version = "1.0"\n[[packages]]\nname = "numpy"\nversion = "2.1.0"\n',
        "uv.lock": '[[package]]\nname = "numpy"\nversion = "2.1.0"\nsource = { registry = "x" }\n',
        "requirements.lock": LOCK,
    }
    folder = repository(tmp_path / "a", {**FILES, name: locks[name]})
    build = make(folder).build
    assert build.parts[name] == locks[name].encode()
    found = part(folder, "environment.json")
    assert (found["source"], [each["name"] for each in found["packages"]]) == (name, ["numpy"])
    assert part(folder, "sbom.cdx.json")["components"][0]["purl"] == "pkg:pypi/numpy@2.1.0"


def test_without_a_lock_what_is_installed_is_locked(tmp_path: Path) -> None:
    folder = repository(
        tmp_path / "a", {name: text for name, text in FILES.items() if name != "requirements.lock"}
    )
    found = part(folder, "environment.json")
    assert found["source"] == "installed"
    assert {"numpy", "reuna", "msgspec"} <= {each["name"] for each in found["packages"]}


def test_a_project_below_the_top_is_built_alone(tmp_path: Path) -> None:
    folder = repository(
        tmp_path / "a", {**{f"line/pump/{name}": text for name, text in FILES.items()}, "other.py": ""}
    )
    made = make(folder / "line" / "pump")
    assert made.data == EXPECTED
    assert made.claim.path == "line/pump"


# --- what is refused ------------------------------------------------------------------------------


def test_a_change_that_is_in_no_commit_is_refused_by_its_name(tmp_path: Path) -> None:
    folder = repository(tmp_path / "a")
    write(folder, {"detector/model.py": "x = 2\n", "detector/new.py": ""})
    with pytest.raises(
        ProjectError, match=r"not as in commit \w{12}: detector/model\.py, detector/new\.py"
    ) as refused:
        make(folder)
    assert "--dirty" in refused.value.next_step


def test_a_change_of_what_is_not_built_is_none(tmp_path: Path) -> None:
    folder = repository(tmp_path / "a")
    write(folder, {"README.md": "x", "notes.txt": "x", "tests/test_new.py": "", "dist/old.json": "{}"})
    assert make(folder).data == EXPECTED


def test_many_changes_are_counted(tmp_path: Path) -> None:
    folder = repository(tmp_path / "a")
    write(folder, {f"detector/n{number}.py": "" for number in range(9)})
    with pytest.raises(ProjectError, match=r"n4\.py and 4 more$"):
        make(folder)


def test_with_dirty_the_folder_is_built_and_the_provenance_says_so(tmp_path: Path) -> None:
    folder = repository(tmp_path / "a")
    clean = make(folder, dirty=True)
    assert (clean.data, clean.claim.dirty) == (EXPECTED, False)
    write(folder, {"detector/new.py": "x = 1\n"})
    made = make(folder, dirty=True)
    assert made.claim.dirty
    assert made.build.parts["code.zip"] == pack_bundle(folder)


def link(folder: Path, name: str, to: str) -> None:
    (folder / name).symlink_to(to)
    commit(folder, {})


@pytest.mark.parametrize(
    ("name", "to"), [("detector/other.py", "/etc/passwd"), ("shared", ".."), ("uv.lock", "requirements.lock")]
)
def test_a_symbolic_link_is_refused_by_its_name(tmp_path: Path, name: str, to: str) -> None:
    folder = repository(tmp_path / "a")
    link(folder, name, to)
    for dirty in (False, True):
        with pytest.raises(ProjectError, match=f"{name} is a symbolic link"):
            make(folder, dirty=dirty)


def test_settings_that_are_a_symbolic_link_are_refused(tmp_path: Path) -> None:
    folder = repository(tmp_path / "a", {**FILES, "other.txt": SETTINGS})
    (folder / "reuna.toml").unlink()
    link(folder, "reuna.toml", "other.txt")
    for dirty in (False, True):
        with pytest.raises(ProjectError, match=r"reuna\.toml is a symbolic link"):
            make(folder, dirty=dirty)


def test_a_link_that_no_build_would_hold_is_passed_over(tmp_path: Path) -> None:
    folder = repository(tmp_path / "a")
    link(folder, "notes.md", "README.md")
    link(folder, "tests/data", "/tmp")
    assert make(folder).data == EXPECTED == make(folder, dirty=True).data


def test_a_submodule_is_refused_by_its_name(tmp_path: Path) -> None:
    folder, other = repository(tmp_path / "a"), repository(tmp_path / "b")
    git(folder, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(other), "shared")
    commit(folder, {})
    with pytest.raises(ProjectError, match="shared is a submodule"):
        make(folder)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"detector/big.json": " " * (1 << 20) + "{}"}, "detector/big.json has 1048578 bytes"),
        ({f"m{number}.py": "#" * (1 << 20) for number in range(17)}, "code files of"),
        ({f"m{number}.py": "" for number in range(1001)}, "1003 code files"),
        ({"reuna.toml": SETTINGS + "#" * (1 << 20)}, "reuna.toml has"),
        ({"requirements.lock": "#" * (MAX_LOCK + 1)}, "requirements.lock has"),
        ({"detector/back\\slash.py": ""}, "no name for a file of code"),
        ({"detector/colon:.py": ""}, "no name for a file of code"),
        ({"detector/latin.py": b"# \xe4\n"}, "detector/latin.py is not UTF-8"),
        ({"reuna.toml": "[project\n"}, "reuna.toml:1:9: is not valid TOML"),
        ({"reuna.toml": "[project]\nnam = 1\n"}, "did you mean project.name"),
        ({"reuna.toml": SETTINGS + "x = nan\n"}, "a number that no plan can hold"),
        ({"reuna.toml": SETTINGS.replace("pump", "p" * 201)}, "project.name has 201 characters"),
        ({"reuna.toml": SETTINGS.replace("pump", "")}, "project.name"),
        ({"requirements.lock": "numpy\n"}, "pins no version"),
    ],
)  # fmt: skip
def test_what_no_build_may_hold_is_named(tmp_path: Path, files: dict[str, str | bytes], said: str) -> None:
    folder = repository(tmp_path / "a", {**FILES, **files})
    for dirty in (False, True):
        with pytest.raises(ReunaError) as refused:
            make(folder, dirty=dirty)
        assert said in refused.value.message
        assert refused.value.exit_status == 2


def test_a_commit_without_a_project_is_named(tmp_path: Path) -> None:
    folder = repository(tmp_path / "a", {"README.md": "x"})
    with pytest.raises(ProjectError, match=r"the project has no reuna\.toml there"):
        make(folder)


def test_a_commit_and_dirty_are_not_given_together(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--dirty builds the folder"):
        make(repository(tmp_path / "a"), "HEAD~0", dirty=True)


@pytest.mark.parametrize("builder", ["", "anna", "a b:c", "https://ci.example.org/\n"])
def test_a_builder_that_is_no_uri_is_refused(tmp_path: Path, builder: str) -> None:
    with pytest.raises(SettingsError, match="is no URI"):
        make(repository(tmp_path / "a"), builder=builder)


def test_what_is_built_can_be_read_by_whoever_has_only_the_file(tmp_path: Path) -> None:
    made = make(repository(tmp_path / "a"), builder="https://ci.example.org/line-4")
    assert decode(made.data) == made.build
    assert made.claim.builder == "https://ci.example.org/line-4"
