"""Projects: loaded with clear errors, packed the same each time, unpacked with suspicion."""

from __future__ import annotations

import io
import os
import stat
import struct
import sys
import types
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reuna.adapters import project as subject
from reuna.adapters.project import (
    MAX_FILE,
    MAX_FILES,
    blame_project,
    is_code,
    load_entry,
    pack_bundle,
    unpack_bundle,
)
from reuna.core.errors import DataError, LearnerError, ProjectError

GOOD = """
from detector.features import NAME

def load(folder, settings):
    return (NAME, folder)

def learner(settings):
    return NAME
"""


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    subject._forget_modules(subject._on_path)
    path = list(sys.path)
    yield
    subject._forget_modules(subject._on_path)
    assert sys.path == path


def project(folder: Path, model: str = GOOD, name: str = "one") -> Path:
    package = folder / "detector"
    package.mkdir(parents=True)
    (folder / "reuna.toml").write_text('[project]\nname = "p"\n')
    (package / "__init__.py").write_text("")
    (package / "features.py").write_text(f"NAME = {name!r}\n")
    (package / "model.py").write_text(model)
    return folder


def test_the_two_functions_of_a_project_are_found(tmp_path: Path) -> None:
    entry = load_entry(project(tmp_path), "detector.model")
    assert entry.load(Path("data"), {}) == ("one", Path("data"))
    assert entry.learner({}) == "one"  # type: ignore[comparison-overlap]


def test_two_projects_may_name_their_modules_alike(tmp_path: Path) -> None:
    first = load_entry(project(tmp_path / "a", name="first"), "detector.model")
    second = load_entry(project(tmp_path / "b", name="second"), "detector.model")
    assert (first.learner({}), second.learner({})) == ("first", "second")


def test_a_project_that_was_edited_is_loaded_anew(tmp_path: Path) -> None:
    folder = project(tmp_path)
    load_entry(folder, "detector.model")
    (folder / "detector" / "features.py").write_text("NAME = 'edited, and longer'\n")
    assert load_entry(folder, "detector.model").learner({}) == "edited, and longer"  # type: ignore[comparison-overlap]


def test_a_folder_without_init_is_a_package_too(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (project(tmp_path / name, name=name) / "detector" / "__init__.py").unlink()
    load_entry(tmp_path / "a", "detector.model")
    assert load_entry(tmp_path / "b", "detector.model").learner({}) == "b"  # type: ignore[comparison-overlap]


@pytest.mark.parametrize(
    ("model", "said", "step"),
    [
        ("x = 1\nx +\n", r"detector/model\.py:2: SyntaxError", "reuna init"),
        ("\n\n1 / 0\n", r"detector/model\.py:3: ZeroDivisionError", "reuna init"),
        ("import sys\nsys.exit(3)\n", r"detector/model\.py:2: SystemExit", "reuna init"),
        ("\nimport nowhere_to_be_found\n", r"detector/model\.py:2: there is no module 'nowhere", "Install"),
        (
            "from detector.nothing import x\n",
            r"model\.py:1: there is no module 'detector.nothing'",
            "Install",
        ),
        ("def load(folder, settings): ...\n", "no function learner", "learner.md"),
        ("x = 1\n", "no function load and no function learner", "learner.md"),
    ],
)
def test_a_mistake_is_named_with_file_and_line(tmp_path: Path, model: str, said: str, step: str) -> None:
    with pytest.raises(ProjectError, match=said) as caught:
        load_entry(project(tmp_path, model), "detector.model")
    assert step in caught.value.next_step


@pytest.mark.parametrize("entry", ["detector.modle", "detektor.model"])
def test_an_entry_that_is_not_there_points_to_the_settings(tmp_path: Path, entry: str) -> None:
    with pytest.raises(ProjectError, match=f"learner.entry is '{entry}', but there is no such") as caught:
        load_entry(project(tmp_path), entry)
    assert "reuna.toml" in caught.value.next_step


@pytest.mark.parametrize("entry", ["", "..", "detector/model", "detector.model.py ", "a..b", "1a"])
def test_what_is_no_module_name_is_refused(tmp_path: Path, entry: str) -> None:
    with pytest.raises(ProjectError, match="no name of a module"):
        load_entry(project(tmp_path), entry)


def test_an_error_in_a_library_names_the_projects_own_line(tmp_path: Path) -> None:
    model = (
        "import json\ndef load(folder, settings): ...\ndef learner(settings):\n    return json.loads('{')\n"
    )
    folder = project(tmp_path, model)
    entry = load_entry(folder, "detector.model")
    with (
        pytest.raises(LearnerError, match=r"making it: detector/model\.py:4: JSONDecodeError"),
        blame_project(folder, "making it"),
    ):
        entry.learner({})


def test_a_neighbour_with_a_longer_name_is_not_the_project(tmp_path: Path) -> None:
    other = tmp_path / "detector-2"
    other.mkdir()
    (other / "m.py").write_text("def f():\n    1 / 0\n")
    names: dict[str, object] = {}
    exec(compile((other / "m.py").read_text(), str(other / "m.py"), "exec"), names)
    with pytest.raises(LearnerError, match=r"x: m\.py:2:"), blame_project(tmp_path / "detector", "x"):
        names["f"]()  # type: ignore[operator]


def test_our_own_errors_pass_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="^no rows$"), blame_project(tmp_path, "loading"):
        raise DataError("no rows")


def test_an_interrupt_is_nobodys_mistake(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), blame_project(tmp_path, "loading"):
        raise KeyboardInterrupt


# --- bundles ---------------------------------------------------------------------------------------


def test_equal_projects_give_equal_bytes(tmp_path: Path) -> None:
    first, second = project(tmp_path / "a"), project(tmp_path / "b")
    for path in second.rglob("*.py"):
        os.utime(path, (1e9, 1e9))
        path.chmod(0o755)
    assert pack_bundle(first) == pack_bundle(second)
    assert pack_bundle(first) != pack_bundle(project(tmp_path / "c", name="other"))


def test_configuration_is_no_part_of_a_bundle(tmp_path: Path) -> None:
    folder = project(tmp_path)
    before = pack_bundle(folder)
    (folder / "reuna.toml").write_text("[train]\nrate = 0.5\n")
    assert pack_bundle(folder) == before, "code that was approved stays approved"
    (folder / "detector" / "reuna.toml").write_text("rate = 0.5\n")
    assert pack_bundle(folder) != before, "what code reads is code"


def test_a_bundle_holds_code_and_nothing_else(tmp_path: Path) -> None:
    folder = project(tmp_path)
    for left in (
        "data/rows.py",
        "runs/r.json",
        ".venv/x.py",
        ".secret.toml",
        "venv/x.py",
        "key.pem",
        "rows.csv",
        "releases/pumps/aliases.json",
        "trust/root.json",
        "trust-seen/files/1.root.json",
    ):
        (folder / left).parent.mkdir(parents=True, exist_ok=True)
        (folder / left).write_text("1")
    (folder / "link.py").symlink_to(folder / "key.pem")
    (folder / "limits.json").write_text("{}")
    (folder / "detector" / "trust").mkdir()
    (folder / "detector" / "trust" / "seen.py").write_text("1")
    names = zipfile.ZipFile(io.BytesIO(pack_bundle(folder))).namelist()
    assert names == sorted(names)
    assert set(names) == {
        "detector/__init__.py",
        "detector/features.py",
        "detector/model.py",
        "detector/trust/seen.py",
        "limits.json",
    }
    assert {name for name in names if is_code(name)} == set(names)
    assert not is_code("releases/pumps/aliases.json")


def test_what_was_packed_is_what_is_unpacked(tmp_path: Path) -> None:
    folder, copy = project(tmp_path / "a"), tmp_path / "b"
    unpack_bundle(pack_bundle(folder), copy)
    assert pack_bundle(copy) == pack_bundle(folder)
    assert load_entry(copy, "detector.model").learner({}) == "one"  # type: ignore[comparison-overlap]


def test_a_file_too_large_for_a_bundle_is_named(tmp_path: Path) -> None:
    folder = project(tmp_path)
    (folder / "table.json").write_bytes(b" " * (MAX_FILE + 1))
    with pytest.raises(ProjectError, match=r"table\.json has 1048577 bytes"):
        pack_bundle(folder)


def test_a_project_too_large_for_a_bundle_is_refused(tmp_path: Path) -> None:
    folder = project(tmp_path)
    for number in range(17):
        (folder / f"m{number}.py").write_bytes(b"#" * MAX_FILE)
    with pytest.raises(ProjectError, match="code files of"):
        pack_bundle(folder)


def zipped(
    files: Mapping[str, bytes], mode: int = 0o100644, compression: int = zipfile.ZIP_DEFLATED
) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as bundle:
        for name, content in files.items():
            info = zipfile.ZipInfo("x")
            info.filename = name
            info.external_attr = mode << 16
            info.compress_type = compression
            bundle.writestr(info, content)
    return out.getvalue()


@pytest.mark.parametrize(
    "name",
    [
        "../out.py",
        "a/../../out.py",
        "/out.py",
        "\\out.py",
        "C:out.py",
        "a/b",
        "run.sh",
        "module.so",
        "model.pkl",
    ],
)
def test_a_name_that_leads_out_or_is_no_code_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ProjectError, match="no bundle of ours"):
        unpack_bundle(zipped({"good.py": b"1", name: b"1"}), tmp_path / "in")
    assert list(tmp_path.rglob("*")) == [], "something was written before all names were judged"


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFDIR, stat.S_IFIFO, stat.S_IFCHR])
def test_only_plain_files_are_unpacked(tmp_path: Path, kind: int) -> None:
    with pytest.raises(ProjectError, match="no bundle of ours"):
        unpack_bundle(zipped({"a.py": b"/etc/passwd"}, kind | 0o644), tmp_path)


def test_another_compression_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="no bundle of ours"):
        unpack_bundle(zipped({"a.py": b"1"}, compression=zipfile.ZIP_BZIP2), tmp_path)


@pytest.mark.parametrize(
    "files",
    [
        {"a.py": b"\0" * (MAX_FILE + 1)},
        {f"m{number}.py": b"\0" * MAX_FILE for number in range(17)},
        {f"m{number}.py": b"" for number in range(MAX_FILES + 1)},
    ],
    ids=["one file", "all files", "their number"],
)
def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, files: dict[str, bytes]) -> None:
    with pytest.raises(ProjectError, match="larger than"):
        unpack_bundle(zipped(files), tmp_path / "in")
    assert not (tmp_path / "in").exists()


def test_a_bomb_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    data = bytearray(zipped({"a.py": b"\0" * 500_000}))
    honest = struct.pack("<L", 500_000)
    while (place := data.find(honest)) >= 0:
        data[place : place + 4] = struct.pack("<L", 10)
    with pytest.raises(ProjectError):
        unpack_bundle(bytes(data), tmp_path)
    assert all(path.stat().st_size <= 10 for path in tmp_path.rglob("*.py"))


def test_a_file_where_a_folder_is_needed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="cannot be unpacked"):
        unpack_bundle(zipped({"a.py": b"1", "a.py/b.py": b"1"}), tmp_path)


@pytest.mark.parametrize("data", [b"", b"PK", b"no zip at all", b"\0" * 100, b"x" * (17 << 20)], ids=len)
def test_what_is_no_zip_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ProjectError):
        unpack_bundle(data, tmp_path)


SOUND = zipped({"a.py": b"x = 1\n" * 20, "b/c.py": b"y = 2\n"})


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, len(SOUND) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_bundle_raises_nothing_else(tmp_path: Path, damage: list[tuple[int, int]]) -> None:
    data = bytearray(SOUND)
    for place, value in damage:
        data[place] = value
    try:
        unpack_bundle(bytes(data), tmp_path / "in")
    except ProjectError:
        return


@pytest.mark.parametrize("name", ["detector/model.py", "words.json"])
def test_a_file_that_is_not_utf_8_is_neither_packed_nor_unpacked(tmp_path: Path, name: str) -> None:
    file = tmp_path / "project" / name
    file.parent.mkdir(parents=True)
    file.write_bytes(b"name = '\xe9'")
    with pytest.raises(ProjectError, match=f"{name} is not UTF-8"):
        pack_bundle(tmp_path / "project")
    with pytest.raises(ProjectError, match=f"{name} is not UTF-8"):
        unpack_bundle(zipped({name: b"name = '\xe9'"}), tmp_path / "into")


def test_a_file_twice_in_a_bundle_is_refused(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as bundle:
        bundle.writestr("a.py", "shown")
        with pytest.warns(UserWarning, match="Duplicate"):
            bundle.writestr("a.py", "run")
    with pytest.raises(ProjectError, match="twice"):
        unpack_bundle(out.getvalue(), tmp_path / "into")


def test_a_module_whose_path_is_no_list_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As torch has one: it answers to any name."""
    strange = types.ModuleType("strange")
    strange.__path__ = object()  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, "strange", strange)
    (tmp_path / "model.py").write_text("def load(folder, settings): ...\ndef learner(settings): ...\n")
    for _ in range(2):  # the second forgets the modules of the first
        assert load_entry(tmp_path, "model")
    assert sys.modules["strange"] is strange
