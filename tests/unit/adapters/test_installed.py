"""What a project needs, found among what is installed: real packages here, made ones in a folder."""

from __future__ import annotations

import base64
import hashlib
import json
import platform
import sys
from collections.abc import Mapping
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import pytest

from reuna.adapters.installed import EXTRAS, digest_of_files, find_installed, modules_of
from reuna.core.environment import Package
from reuna.core.errors import ExtraMissing, ProjectError
from reuna.core.readiness import Module


def needs(text: str, **more: str) -> dict[str, Package]:
    code = {
        "detector/model.py": text.encode(),
        **{f"{name}.py": said.encode() for name, said in more.items()},
    }
    return {each.name: each for each in find_installed(code).packages}


def install(
    folder: Path, name: str, files: Mapping[str, str], requires: str = "", **notes: str
) -> metadata.Distribution:
    """A package as pip leaves it."""
    info = f"{name.replace('-', '_')}-1.0.dist-info"
    about = f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.0\nLicense-Expression: MIT\n{requires}\n"
    written = {
        **files,
        f"{info}/METADATA": about,
        **{f"{info}/{note.replace('_json', '.json')}": text for note, text in notes.items()},
    }
    record = []
    for path, text in written.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
        mark = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
        record.append(f"{path},sha256={mark},{len(text)}")
    (folder / info / "RECORD").write_text("\n".join([*record, f"{info}/RECORD,,"]))
    return metadata.Distribution.at(folder / info)


def test_what_code_imports_is_found_with_all_that_it_needs() -> None:
    found = needs("import sklearn.linear_model\nfrom numpy import array\n")
    assert found["scikit-learn"].version == metadata.version("scikit-learn")
    assert {"reuna", "numpy", "scikit-learn", "scipy", "joblib"} <= set(found)
    assert "scipy" in (found["scikit-learn"].needs or ())
    assert "pytest" not in found


def test_an_environment_says_its_python_and_what_the_project_itself_needs() -> None:
    found = find_installed({"model.py": b"import numpy\n"})
    assert (found.source, found.roots, found.python) == (
        "installed",
        ("numpy", "reuna"),
        platform.python_version(),
    )


def test_own_modules_the_standard_library_and_neighbours_are_no_packages() -> None:
    plain = needs("")
    assert (
        needs("import os, detector.other, features\nfrom . import x\nfrom .y import z\n", features="")
        == plain
    )


def test_a_module_of_ours_brings_the_extra_that_it_needs() -> None:
    for line in (
        "from reuna.adapters.sklearn_learner import SklearnLearner",
        "from reuna.adapters import sklearn_learner",
    ):
        assert "scikit-learn" in needs(line)
    assert "scikit-learn" not in needs("from reuna.adapters.linear import SoftmaxClassifier")


def test_each_extra_that_a_module_brings_is_one_of_ours_and_the_module_is_there() -> None:
    assert set(EXTRAS.values()) <= set(metadata.metadata("reuna").get_all("Provides-Extra") or ())
    assert all(find_spec(module) for module in EXTRAS)


def test_what_is_not_installed_is_named_with_the_file_that_imports_it() -> None:
    with pytest.raises(
        ProjectError, match=r"detector/model\.py imports nowhere\.deep, which is not installed"
    ) as refused:
        needs("import nowhere.deep\n")
    assert "lock" in refused.value.next_step


def test_what_code_goes_on_without_may_be_missing() -> None:
    assert needs("try:\n    import nowhere\nexcept ImportError:\n    nowhere = None\n")
    with pytest.raises(ProjectError, match="nowhere"):
        needs("try:\n    import nowhere\nexcept ImportError:\n    nowhere = None\n", other="import nowhere")


@pytest.mark.parametrize("text", ["import (", "x = " + "(" * 500, "x = '\0'"])
def test_a_file_that_is_no_python_is_named(text: str) -> None:
    with pytest.raises(ProjectError, match=r"detector/model\.py is no Python"):
        needs(text)


def test_nothing_of_the_code_is_run(tmp_path: Path) -> None:
    needs(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    assert not list(tmp_path.iterdir())


def test_without_the_extra_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "packaging.requirements", None)
    with pytest.raises(ExtraMissing, match="packaging"):
        needs("")


def test_markers_and_extras_decide_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("made-b", "made-c", "made-d"):
        install(tmp_path, name, {f"{name.replace('-', '_')}.py": ""})
    wanted = "Requires-Dist: made-b[x]\nRequires-Dist: made-c; sys_platform == 'never'\nRequires-Dist: made-d; extra == 'deep'\n"
    install(tmp_path, "made-a", {"made_a.py": ""}, wanted + "Requires-Dist: ???\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = needs("import made_a\n")
    assert found["made-a"].needs == ("made-b",)
    assert found["made-a"].licence == "MIT"
    assert not {"made-c", "made-d"} & set(found)


def test_a_package_that_needs_what_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "made-a", {"made_a.py": ""}, "Requires-Dist: made-z\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ProjectError, match="made-z is needed and not installed"):
        needs("import made_a\n")


def test_the_digest_of_files_is_the_same_on_every_machine(tmp_path: Path) -> None:
    files = {"made_a/__init__.py": "x = 1\n"}
    first = install(tmp_path / "a" / "lib", "made-a", files)
    second = install(
        tmp_path / "b" / "lib",
        "made-a",
        {**files, "../bin/made": "#!/somewhere/else", "made_a/__pycache__/x.pyc": "", "made_a.pth": "/here"},
        INSTALLER="uv",
        REQUESTED="",
        direct_url_json=json.dumps({"url": "file:///here", "archive_info": {}}),
    )
    assert digest_of_files(first) == digest_of_files(second) != ""
    third = install(tmp_path / "c" / "lib", "made-a", {"made_a/__init__.py": "x = 2\n"})
    assert digest_of_files(third) != digest_of_files(first)


def test_a_package_that_is_a_link_to_its_source_has_no_digest_of_files(tmp_path: Path) -> None:
    link = json.dumps({"url": "file:///here", "dir_info": {"editable": True}})
    assert digest_of_files(install(tmp_path, "made-a", {"made_a.py": ""}, direct_url_json=link)) == ""
    assert (
        digest_of_files(install(tmp_path / "b", "made-a", {"made_a.py": ""}, direct_url_json="no JSON")) != ""
    )


def test_modules_without_which_the_code_cannot_be_imported_are_named_with_their_packages() -> None:
    code = {
        "detector/model.py": b"import json\nimport numpy as np\nfrom detector import features\n"
        b"from reuna.adapters.sklearn_learner import SklearnLearner\n",
        "detector/features.py": b"try:\n    import pandas\nexcept ImportError:\n    pandas = None\n"
        b"import no_such_module.deep\n",
        "reuna.json": b"{}",
    }
    found = {each.name: each for each in modules_of(code)}
    assert sorted(found) == ["no_such_module", "numpy", "sklearn"]
    assert found["sklearn"].package == "scikit-learn"
    assert found["numpy"].version == metadata.version("numpy")
    assert found["no_such_module"] == Module("no_such_module")
