"""Exports of a release: whole or not at all, and the release itself can be made again from each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from typer.testing import CliRunner

from reuna.adapters import trust_keys
from reuna.cli import app
from reuna.core.errors import DiskFull, KeyProblem, NotUsable, ReleaseNotFound, SettingsError, Untrusted
from reuna.fleet.release_export import export, read
from reuna.template import make_project
from reuna.trust.model_signing import new_key
from reuna.wire import oci
from reuna.wire import release as wire
from tests.catalogues import PROJECT, add, release
from tests.effects import disk_full_at

RUN = CliRunner()
KEY = new_key()
PUBLIC = KEY.public_key()


class Shelf:
    """A project with one release."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.data = folder, release()
        make_project(folder / "pumps", sample=False)
        settings = folder / "pumps" / "reuna.toml"
        settings.write_text(settings.read_text().replace('name = "pumps"', f'name = "{PROJECT}"'))
        self.file = add(folder / "releases", self.data).file(1)

    def export(self, form: str, name: str = "out") -> Path:
        export(self.file, wire.decode(self.data), self.folder / name, form, KEY)
        return self.folder / name

    def reuna(self, *words: str) -> Any:
        return RUN.invoke(app, ["release", *words])

    def command(self, *words: str) -> Any:
        places = ["--project", str(self.folder / "pumps"), "--releases", str(self.folder / "releases")]
        return self.reuna("export", *words, *places)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


FORMS = [("openssf", "out"), ("oci", "out"), ("oci", "out.tar")]


@pytest.mark.parametrize(("form", "name"), FORMS)
def test_the_release_can_be_made_again_byte_for_byte(shelf: Shelf, form: str, name: str) -> None:
    found = read(shelf.export(form, name), PUBLIC)
    assert (found.form, found.data) == (form, shelf.data)
    assert sorted(path.name for path in shelf.folder.iterdir()) == sorted(["pumps", "releases", name])


@pytest.mark.parametrize(("form", "name"), FORMS)
def test_the_same_release_is_the_same_bytes_each_time(shelf: Shelf, form: str, name: str) -> None:
    first, second = shelf.export(form, f"1-{name}"), shelf.export(form, f"2-{name}")
    names = ["."] if first.is_file() else [str(p.relative_to(first)) for p in first.rglob("*") if p.is_file()]
    assert [(first / each).read_bytes() for each in names] == [(second / each).read_bytes() for each in names]


@pytest.mark.parametrize("form", ["openssf", "oci"])
def test_every_file_that_is_changed_or_missing_is_noticed(shelf: Shelf, form: str) -> None:
    out = shelf.export(form)
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        kept = path.read_bytes()
        path.write_bytes(kept + b" x")
        if path.name != oci.INDEX:
            with pytest.raises(Untrusted):
                read(out, PUBLIC)
        path.unlink()
        with pytest.raises(Untrusted):
            read(out, PUBLIC)
        path.write_bytes(kept)
    assert read(out, PUBLIC).data == shelf.data


def test_a_file_or_a_link_too_many_in_a_signed_folder_is_noticed(shelf: Shelf) -> None:
    out = shelf.export("openssf")
    (out / "extra").mkdir()
    (out / "extra" / "run.py").write_text("evil")
    with pytest.raises(Untrusted, match="was not signed"):
        read(out, PUBLIC)
    (out / "extra" / "run.py").unlink()
    (out / "card.md").rename(shelf.folder / "card.md")
    (out / "card.md").symlink_to(shelf.folder / "card.md")
    with pytest.raises(Untrusted, match="is a link"):
        read(out, PUBLIC)


def test_a_layout_whose_release_is_another_than_it_says_is_refused(shelf: Shelf) -> None:
    out = shelf.export("oci")
    index = json.loads((out / "index.json").read_text())
    blob = out / "blobs/sha256" / index["manifests"][0]["digest"].partition(":")[2]
    manifest = json.loads(blob.read_text())
    manifest["annotations"]["reuna.release.digest"] = "0" * 64
    data = wire.canonical(manifest)
    (blob.parent / wire.sha256(data)).write_bytes(data)
    index["manifests"][0] |= {"digest": f"sha256:{wire.sha256(data)}", "size": len(data)}
    (out / "index.json").write_bytes(wire.canonical(index))
    with pytest.raises(Untrusted, match="are not those of the release"):
        read(out, PUBLIC)


@pytest.mark.parametrize("form", ["openssf", "oci"])
@pytest.mark.parametrize("nth", [1, 4])
def test_a_full_disk_leaves_nothing(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, form: str, nth: int
) -> None:
    disk_full_at(monkeypatch, nth)
    with pytest.raises(DiskFull):
        shelf.export(form)
    assert sorted(path.name for path in shelf.folder.iterdir()) == ["pumps", "releases"]


def test_nothing_that_is_there_is_written_over(shelf: Shelf) -> None:
    (shelf.folder / "out").mkdir()
    shelf.export("oci")
    before = sorted((shelf.folder / "out").rglob("*"))
    for name in ("out", "releases"):
        with pytest.raises(NotUsable, match="there already"):
            shelf.export("openssf", name)
    (shelf.folder / "link").symlink_to("nowhere")
    with pytest.raises(NotUsable, match="there already"):
        shelf.export("oci", "link")
    assert sorted((shelf.folder / "out").rglob("*")) == before


def test_the_commands_key_export_and_verify(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust_keys, "COST", 2**4)
    key, out, secret = shelf.folder / "export.key", shelf.folder / "out", shelf.folder / "words"
    secret.write_text("words\n")
    locked = ["--passphrase-file", str(secret)]
    assert shelf.reuna("key", "--out", str(key), *locked).exit_code == 0
    assert isinstance(shelf.reuna("key", "--out", str(key)).exception, KeyProblem), "never written over"
    assert key.stat().st_mode & 0o777 == 0o600
    done = shelf.command("challenger", "--to", str(out), "--format", "openssf", "--key", str(key), *locked)
    assert done.exit_code == 0, done.exception
    assert done.stdout == f"{out}: {PROJECT} 1 as openssf, 10 files\n"
    said = shelf.reuna("verify", str(out), "--public-key", f"{key}.pub", "--json")
    assert json.loads(said.stdout)["digest"] == wire.decode(shelf.data).digest
    assert isinstance(shelf.reuna("verify", str(out)).exception, KeyProblem)
    for name in ("layout", "layout.tar"):
        made = shelf.command("1", "--to", str(shelf.folder / name), "--format", "oci", "--json")
        assert json.loads(made.stdout)["format"] == "oci"
        assert "every digest holds" in shelf.reuna("verify", str(shelf.folder / name)).stdout


def test_mistakes_are_one_clear_error(shelf: Shelf) -> None:
    def refused(*words: str) -> BaseException:
        found: BaseException = shelf.command("1", "--to", str(shelf.folder / "out"), *words).exception
        assert not (shelf.folder / "out").exists()
        return found

    assert isinstance(refused("--format", "zip"), SettingsError)
    assert isinstance(refused("--format", "openssf"), KeyProblem)
    key = shelf.folder / "k1"
    strange = ec.generate_private_key(ec.SECP256K1())
    key.write_bytes(strange.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    assert isinstance(refused("--format", "openssf", "--key", str(key)), KeyProblem)
    assert isinstance(refused("--format", "oci", "--key", str(key)), SettingsError)
    trust_keys.write_key(shelf.folder / "k2", trust_keys.new_key(), None)
    assert isinstance(refused("--format", "openssf", "--key", str(shelf.folder / "k2")), KeyProblem)
    gone = shelf.command("9", "--to", str(shelf.folder / "out"), "--format", "oci")
    assert isinstance(gone.exception, ReleaseNotFound)
    (shelf.folder / "empty").mkdir()
    assert isinstance(shelf.reuna("verify", str(shelf.folder / "empty")).exception, Untrusted)
    assert isinstance(shelf.reuna("verify", str(shelf.folder / "none.tar")).exception, NotUsable)
