"""Locks that a project may have, as the tools write them."""

from __future__ import annotations

import pytest

from reuna.adapters.lock_files import MAX_PACKAGES, read_lock
from reuna.core.environment import Environment, Package
from reuna.core.errors import ProjectError

A, B, C = "aa" * 32, "bb" * 32, "cc" * 32

REQUIREMENTS = f"""\
# made by a tool
--index-url https://index.example.org/simple
--only-binary :all:
-e .
Foo_Bar[extra]==1.0+cpu ; python_version < "3.12" \\
    --hash=sha256:{B} \\
    --hash=sha256:{A}
    # via pump
numpy==2.1.0 --hash=sha256:{C}  # for the model
"""
UV = f"""\
version = 1
[[package]]
name = "pump"
version = "0.1.0"
source = {{ editable = "." }}
dependencies = [{{ name = "numpy" }}, {{ name = "gone" }}]
[package.optional-dependencies]
deep = [{{ name = "Foo_Bar" }}]
[[package]]
name = "foo-bar"
version = "1.0+cpu"
source = {{ registry = "https://index.example.org/simple" }}
dependencies = [{{ name = "numpy", marker = "python_version < '3.12'" }}]
sdist = {{ url = "https://index.example.org/f.tar.gz", hash = "sha256:{B}", size = 1 }}
wheels = [{{ url = "https://index.example.org/f.whl", hash = "sha256:{A}" }}]
[[package]]
name = "numpy"
version = "2.1.0"
source = {{ registry = "https://index.example.org/simple" }}
wheels = [{{ url = "https://index.example.org/n.whl", hash = "sha256:{C}" }}]
"""
PYLOCK = f"""\
lock-version = "1.0"
created-by = "a tool"
[[packages]]
name = "foo-bar"
version = "1.0+cpu"
marker = 'python_version < "3.12"'
sdist = {{ name = "f.tar.gz", hashes = {{ sha256 = "{B}" }} }}
wheels = [{{ name = "f.whl", hashes = {{ sha256 = "{A}", md5 = "x" }} }}]
[[packages]]
name = "numpy"
version = "2.1.0"
wheels = [{{ name = "n.whl", hashes = {{ sha256 = "{C}" }} }}]
"""
MARKER = 'python_version < "3.12"'


def read(name: str, text: str) -> Environment:
    return read_lock(name, text.encode())


def test_requirements_with_hashes_are_read() -> None:
    assert read("requirements.lock", REQUIREMENTS).packages == (
        Package("foo-bar", "1.0+cpu", MARKER, (A, B)),
        Package("numpy", "2.1.0", "", (C,)),
    )


def test_windows_line_ends_change_nothing() -> None:
    assert read("requirements.lock", REQUIREMENTS.replace("\n", "\r\n")) == read(
        "requirements.lock", REQUIREMENTS
    )


def test_a_lock_of_uv_also_says_what_needs_what() -> None:
    found = read("uv.lock", UV)
    assert found.packages == (
        Package("foo-bar", "1.0+cpu", archives=(A, B), needs=("numpy",)),
        Package("numpy", "2.1.0", archives=(C,), needs=()),
    )
    assert found.roots == ("foo-bar", "numpy")


def test_the_standard_lock_is_read() -> None:
    found = read("pylock.toml", PYLOCK)
    assert found.packages == read("requirements.lock", REQUIREMENTS).packages
    assert (found.source, found.roots, found.python) == ("pylock.toml", None, "")


def test_one_version_for_several_markers_is_one_package() -> None:
    lines = f"a==1 ; os_name == 'x' --hash=sha256:{A}\na==1 ; os_name == 'y' --hash=sha256:{B}\na==2\nb==1\nb==1 ; os_name == 'x'\n"
    assert read("requirements.lock", lines).packages == (
        Package("a", "1", "(os_name == 'x') or (os_name == 'y')", (A, B)),
        Package("a", "2"),
        Package("b", "1"),
    )


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("requirements.lock", "numpy>=2\n", "'numpy>=2' pins no version"),
        ("requirements.lock", "numpy\n", "pins no version"),
        ("requirements.lock", "-r other.txt\n", "pins no version"),
        ("requirements.lock", "-e ../other\n", "pins no version"),
        ("requirements.lock", "numpy @ https://index.example.org/n.whl\n", "pins no version"),
        ("requirements.lock", "numpy==2.*\n", "has no exact version"),
        ("requirements.lock", "--index-url https://anna:secret@index.example.org/\n", "a password in it"),
        ("uv.lock", UV.replace("https://index", "https://anna:secret@index"), "a password in it"),
        ("uv.lock", "version = 1\n", "lacks 'package'"),
        ("uv.lock", "package = 7\n", "cannot be read"),
        ("uv.lock", "package = [7]\n", "cannot be read"),
        ("uv.lock", "= 7\n", "cannot be read"),
        ("uv.lock", UV.replace('version = "2.1.0"\n', ""), "lacks 'version'"),
        ("uv.lock", UV.replace(f"sha256:{C}", "sha1:abc"), "numpy has the hash 'sha1:abc', which is no SHA-256"),
        ("uv.lock", "x = " + "[" * 3000, "cannot be read"),
        ("pylock.toml", PYLOCK.replace('"1.0"', '"2.0"'), "is of version '2.0', not 1"),
        ("pylock.toml", PYLOCK.replace('version = "2.1.0"\n', ""), "lacks 'version'"),
        ("pylock.toml", 'lock-version = "1.0"\n', "lacks 'packages'"),
        ("requirements.lock", "".join(f"a{n}==1\n" for n in range(MAX_PACKAGES + 1)), "over 5000"),
    ],
)  # fmt: skip
def test_what_pins_nothing_or_cannot_be_read_is_named(name: str, text: str, said: str) -> None:
    with pytest.raises(ProjectError, match=name) as refused:
        read(name, text)
    assert said in refused.value.message
    assert "secret" not in refused.value.message


def test_a_lock_that_is_not_utf_8_is_named() -> None:
    with pytest.raises(ProjectError, match=r"uv\.lock is not UTF-8"):
        read_lock("uv.lock", b"\xff")


def test_a_user_name_without_a_password_may_stand_in_an_address() -> None:
    assert read("requirements.lock", "# git+ssh://git@git.example.org/pump.git\nnumpy==2.1.0\n").packages
