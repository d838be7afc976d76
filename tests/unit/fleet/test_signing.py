"""A release becomes a signed target where the keys are; what fails leaves nothing half done."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from reuna.adapters import trust_keys
from reuna.cli import app
from reuna.core.errors import DiskFull, KeyProblem, Untrusted
from reuna.fleet import trust
from reuna.fleet.signing import mark_at, sign
from reuna.fleet.trust import Ceremony
from reuna.template import make_project
from reuna.trust.metadata import begin, update
from reuna.trust.targets import target
from reuna.wire import release as wire
from tests import catalogues as releases
from tests.effects import disk_full_at

RUN = CliRunner()
WORDS = b"correct horse"


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """A passphrase costs little here."""
    monkeypatch.setattr(trust_keys, "COST", 2**4)


def release(version: int = 1, text: bytes = b"{}\n") -> tuple[wire.Release, bytes]:
    data = releases.release(version, gates=text)
    return wire.decode(data), data


def ceremony(folder: Path, now: float | None = None, words: bytes = WORDS) -> Ceremony:
    return Ceremony(folder, now or time.time(), lambda _: words)


def made(folder: Path, count: int = 1, threshold: int = 1) -> Path:
    trust.init(ceremony(folder), "line-4", count, threshold, WORDS)
    return folder


def everything(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in {".lock", "audit.jsonl"}
    }


def test_a_node_accepts_what_was_signed_by_its_digest(tmp_path: Path) -> None:
    folder = made(tmp_path / "trust")
    for version in (1, 2):
        found, data = release(version)
        assert sign(ceremony(folder), found, data) == {}
        assert sign(ceremony(folder), found, data) == {}, "twice is once"
        mark = mark_at(folder, found.digest, time.time())
        assert (mark.state, mark.path) == ("signed", f"releases/pumps-hall-2-000{version}")
    root = (folder / "root.json").read_bytes()
    state = update(begin("line-4", root), ceremony(folder).repository.file, time.time())
    first = release(1)[0]
    assert target(state, "releases/pumps-hall-2-0001", time.time()).sha256 == first.digest, "still signed"


def test_a_signed_version_is_never_replaced_by_other_bytes(tmp_path: Path) -> None:
    folder = made(tmp_path / "trust")
    sign(ceremony(folder), *release(1))
    before = everything(folder)
    with pytest.raises(KeyProblem, match="signed with other bytes"):
        sign(ceremony(folder), *release(1, b"[]\n"))
    assert everything(folder) == before


def test_with_one_key_of_two_it_waits_and_says_for_what(tmp_path: Path) -> None:
    folder = made(tmp_path / "trust", 2, 2)
    second = folder / "keys" / "release-2.key"
    shutil.move(second, tmp_path / "stick.key")
    found, data = release()
    assert "1/2 keys" in sign(ceremony(folder), found, data)["targets"]
    mark = mark_at(folder, found.digest, time.time())
    assert (mark.state, mark.path) == ("waits", "releases/pumps-hall-2-0001")
    trust.sign_file(folder / "staged" / "targets.json", ceremony(folder).key(tmp_path / "stick.key"))
    assert ceremony(folder).settle() == {}
    assert mark_at(folder, found.digest, time.time()).state == "signed"


def test_without_the_online_keys_it_is_signed_and_waits_for_publication(tmp_path: Path) -> None:
    folder = made(tmp_path / "trust")
    (folder / "online").rename(tmp_path / "online")
    found, data = release()
    assert "trust publish" in sign(ceremony(folder), found, data)["targets"]
    assert mark_at(folder, found.digest, time.time()).state == "waits"
    (tmp_path / "online").rename(folder / "online")
    assert ceremony(folder).settle() == {}
    assert mark_at(folder, found.digest, time.time()).state == "signed"


def test_a_wrong_passphrase_leaves_the_trust_folder_as_it_was(tmp_path: Path) -> None:
    folder = made(tmp_path / "trust")
    ceremony(folder).restage("code")  # something else waits already
    before = everything(folder)
    with pytest.raises(KeyProblem, match="does not open"):
        sign(ceremony(folder, words=b"wrong"), *release())
    assert everything(folder) == before


def test_metadata_over_its_time_signs_nothing_and_names_what_is_over(tmp_path: Path) -> None:
    folder = made(tmp_path / "trust")
    before = everything(folder)
    late = time.time() + 400 * 86400
    with pytest.raises(Untrusted, match="root"):
        sign(ceremony(folder, now=late), *release())
    assert everything(folder) == before


def test_a_release_whose_list_is_over_its_time_is_said_to_be_expired(tmp_path: Path) -> None:
    folder = made(tmp_path / "trust")
    found, data = release()
    sign(ceremony(folder), found, data)
    mark = mark_at(folder, found.digest, time.time() + 400 * 86400)
    assert (mark.state, mark.why) == ("expired", "root is over its time")


@pytest.mark.parametrize("nth", range(1, 12))
def test_a_disk_that_fills_up_anywhere_leaves_nothing_half_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    folder = made(tmp_path / "trust")
    before = everything(folder)
    disk_full_at(monkeypatch, nth)
    try:
        assert sign(ceremony(folder), *release()) == {}
    except DiskFull:
        after = everything(folder)
        published = {name for name in after if name.startswith("public/")}
        if after["public/timestamp.json"] == before["public/timestamp.json"]:
            assert after == before
        else:
            assert "public/2.targets.json" in published, "it is out already; only tidying up failed"
        assert sign(ceremony(folder), *release()) == {}, "and the next try works"
    assert mark_at(folder, release()[0].digest, time.time()).state == "signed"


# The commands.


class Desk:
    """A catalogue with one release in it, and a trust folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        make_project(folder / "pumps", sample=False)
        settings = folder / "pumps" / "reuna.toml"
        settings.write_text(settings.read_text().replace('name = "pumps"', f'name = "{releases.PROJECT}"'))
        data = releases.release()
        catalogue = releases.add(folder / "releases", data)
        self.file, self.digest = catalogue.file(1), wire.decode(data).digest
        self.trust = made(folder / "trust")
        (folder / "words").write_bytes(WORDS + b"\n")

    def reuna(self, *words: str) -> Any:
        return RUN.invoke(app, ["release", *words])

    @property
    def places(self) -> list[str]:
        return ["--project", str(self.folder / "pumps"), "--releases", str(self.folder / "releases")]

    def sign(self, *words: str) -> Any:
        secret = ["--passphrase-file", str(self.folder / "words")]
        return self.reuna("sign", *self.places, "--trust", str(self.trust), *secret, *words)

    def verify(self, *words: str) -> Any:
        where = ["--from", str(self.trust), "--seen", str(self.folder / "seen")]
        return self.reuna("verify", str(self.file), *where, *words)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_sign_verify_list_and_show_agree(desk: Desk) -> None:
    trusts = ["--trust", str(desk.trust)]
    (before,) = json.loads(desk.reuna("list", *desk.places, *trusts, "--json").stdout)
    assert before["signature"]["state"] == "unsigned"
    assert desk.sign().stdout == "signed: releases/pumps-hall-2-0001\n"
    (after,) = json.loads(desk.reuna("list", *desk.places, *trusts, "--json").stdout)
    assert after["signature"] == {"state": "signed", "path": "releases/pumps-hall-2-0001", "why": ""}
    assert " signed " in desk.reuna("list", *desk.places, *trusts).stdout
    assert "signed: releases" in desk.reuna("show", "1", *desk.places, *trusts).stderr
    said = desk.verify("--signed", "--root", str(desk.trust / "root.json"), "--json")
    assert json.loads(said.stdout)["signature"]["state"] == "signed"


def test_verify_demands_a_signature_where_it_is_asked_to(desk: Desk) -> None:
    root = ["--root", str(desk.trust / "root.json")]
    assert "name the fleet's root.json with --root" in desk.verify().stdout
    assert not (desk.folder / "seen").exists(), "a look leaves nothing behind"
    assert isinstance(desk.verify("--signed").exception, KeyProblem)
    plain = desk.verify(*root)
    assert plain.exit_code == 0 and "not signed" in plain.stdout
    refused = desk.verify("--signed")
    assert isinstance(refused.exception, Untrusted) and refused.exception.reason == "unknown"


def test_another_fleets_signature_does_not_count(desk: Desk) -> None:
    desk.sign()
    other = made(desk.folder / "other")
    refused = desk.verify("--signed", "--root", str(other / "root.json"))
    assert isinstance(refused.exception, Untrusted)


def test_a_locked_key_without_anybody_to_ask_is_an_error_that_says_how(desk: Desk) -> None:
    done = desk.reuna("sign", *desk.places, "--trust", str(desk.trust))
    assert isinstance(done.exception, KeyProblem) and "--passphrase-file" in done.exception.next_step
    assert not (desk.trust / "staged" / "targets.json").exists()


def test_a_folder_without_a_root_is_no_trust_folder_and_stays_as_it_is(desk: Desk) -> None:
    done = desk.reuna("sign", *desk.places, "--trust", str(desk.folder / "nothing"))
    assert isinstance(done.exception, KeyProblem) and "no trust folder" in done.exception.message
    assert not (desk.folder / "nothing").exists()


def test_a_trust_folder_that_cannot_be_read_costs_no_list(desk: Desk) -> None:
    desk.sign()
    (desk.trust / "public" / "2.targets.json").write_text("{")
    (found,) = json.loads(desk.reuna("list", *desk.places, "--trust", str(desk.trust), "--json").stdout)
    assert found["signature"]["state"] == "unknown" and "targets" in found["signature"]["why"]
    assert desk.reuna("show", "1", *desk.places, "--trust", str(desk.trust)).exit_code == 0


def test_what_was_withdrawn_is_signed_no_more(desk: Desk) -> None:
    desk.sign()
    assert trust.withdraw(ceremony(desk.trust), "releases/pumps-hall-2-0001") == {}
    assert mark_at(desk.trust, desk.digest, time.time()).state == "unsigned"


def test_a_release_is_signed_for_those_who_are_named_until_others_are(desk: Desk) -> None:
    def signed_for(*words: str) -> tuple[str, ...]:
        assert desk.sign(*words).exit_code == 0
        (each,) = [x for x in ceremony(desk.trust).listed("targets") if x.kind == "release"]
        assert (each.project, each.number) == (releases.PROJECT, 1)
        return each.where

    assert signed_for("--where", "mill-2", "--where", "press-1") == ("mill-2", "press-1")
    assert signed_for() == ("mill-2", "press-1"), "signed again it stays so"
    assert signed_for("--where", "mill-3") == ("mill-3",)
