"""A release: made only of a run whose gates hold, by the code of that run; named, promoted, taken back."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from reuna.adapters import trust_keys
from reuna.adapters.onnx_export import run_graph, sample_input
from reuna.adapters.project import load_entry, pack_bundle
from reuna.cli import app
from reuna.core.errors import (
    Corrupted,
    KeyProblem,
    NotReleased,
    NotSignedIn,
    ReleaseNotFound,
    Untrusted,
)
from reuna.core.records import ReleaseAsked
from reuna.core.tensors import pack
from reuna.fleet.bill import KEPT, keep_build
from reuna.fleet.build import Made, assemble, in_folder
from reuna.fleet.built import write
from reuna.fleet.export import MODEL
from reuna.fleet.open_project import open_settings
from reuna.fleet.release import Catalogue, lineage, make, read
from reuna.fleet.trust import Ceremony, init
from reuna.template import make_project
from reuna.trust.provenance import Claim, judge, state
from reuna.wire import digest_bytes
from reuna.wire import release as wire
from reuna.wire.build import SBOM, decode
from tests.finished import finished

RUN = CliRunner()
KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
GATES = "\n[gates]\nall = { min = 0.9, max_drop = 0.05 }\n"
LOCK = "numpy==2.1.0\nreuna==0.1.0\n"


def site(name: str, value: float) -> dict[str, Any]:
    return {"site": name, "nodes": [name], "federated": {"all": value}}


class Place:
    """A project with gates, and runs as a fleet would have left them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.project = folder, folder / "pumps"
        make_project(self.project, sample=False)
        settings = self.project / "reuna.toml"
        settings.write_text(settings.read_text().partition("\n[gates]")[0] + GATES)
        (self.project / "requirements.lock").write_text(LOCK)
        told = open_settings(self.project, [])
        self.learner: Any = load_entry(self.project, told.entry).learner(told.settings)
        self.tensors = self.learner.init(told.seed)
        self.model = pack(self.tensors)

    def run(self, name: str, *values: float, **more: Any) -> tuple[Path, dict[str, Any]]:
        """A finished run with so much at each site."""
        folder = self.folder / "runs" / name
        folder.mkdir(parents=True)
        (folder / MODEL).write_bytes(self.model)
        sites = [site(f"pump-{number}", value) for number, value in enumerate(values, 1)]
        spec = {
            "run": name, "project": "pumps", "task": "fault-classification", "metric": "all", "rounds": 2,
            "strategy": "fedavg", "fogs": {"fog-1": ["pump-1"]}, "model": "0" * 64, "model_size": 1, "params": 1,
            "bundle": digest_bytes(pack_bundle(self.project)), "bundle_size": 1,
        }  # fmt: skip
        result = finished(name, sites=sites, asked=spec, model_digest=digest_bytes(self.model), **more)
        (folder / "result.json").write_text(json.dumps(result))
        return folder, result

    def make(self, name: str, *values: float, **more: Any) -> Path:
        return make(*self.run(name, *values, **more), self.project, self.folder / "releases").file

    @property
    def catalogue(self) -> Catalogue:
        return Catalogue.of(self.folder / "releases", "pumps")

    def reuna(self, *words: str) -> Any:
        places = ["--project", str(self.project), "--releases", str(self.folder / "releases")]
        return RUN.invoke(app, ["release", *words, *places])


@pytest.fixture
def place(tmp_path: Path) -> Place:
    pytest.importorskip("onnxruntime")
    return Place(tmp_path)


def test_a_release_answers_as_the_model_and_says_where_it_comes_from(place: Place) -> None:
    source = {"code": "1" * 64, "commit": "2" * 40, "dirty": True, "build": "3" * 64}
    found = read(place.make("r-1", 0.95, 0.92, source=source))
    about, history = found.manifest.about, lineage(found)
    assert (about.project, about.version, about.run, about.replaces) == ("pumps", 1, "r-1", "")
    assert history["source"] == {**source}
    assert [each["site"] for each in history["sites"]] == ["pump-1", "pump-2"]
    contract = json.loads(found.parts[wire.CONTRACT])
    flow = next(each for each in contract["signals"] if each["name"] == "flow_m3_h")
    assert (flow["unit"], flow["min"], flow["max"], flow["max_gap_s"]) == ("m3/h", 0, 200, 60)
    assert contract["windows"] == {"rows": 12, "step": 6}
    rows = sample_input(found.parts[wire.MODEL], 9, seed=1)
    answers = place.learner.predict(place.tensors, rows)
    assert run_graph(found.parts[wire.MODEL], rows) == pytest.approx(answers, abs=1e-5)
    card = found.parts[wire.CARD].decode()
    for word in (
        "pump-2",
        "0.92 ✓",
        "m3/h",
        "2" * 40,
        "changes that are not in it",
        "nothing, no release was champion",
    ):
        assert word in card


def test_the_same_run_gives_the_same_bytes(place: Place) -> None:
    first = place.make("r-1", 0.95)
    again = make(
        place.folder / "runs" / "r-1",
        json.loads((place.folder / "runs/r-1/result.json").read_text()),
        place.project,
        place.folder / "elsewhere",
    )
    assert again.file.read_bytes() == first.read_bytes()


def test_releases_and_evidence_beside_the_code_are_no_code(place: Place) -> None:
    """Both are written into the folder that a person works in: the next run's code is the same."""
    before = digest_bytes(pack_bundle(place.project))
    for folder in ("releases", "evidence"):
        (place.project / folder / "pumps").mkdir(parents=True)
        (place.project / folder / "pumps" / "aliases.json").write_text("{}")
    assert digest_bytes(pack_bundle(place.project)) == before


def test_a_model_that_is_bad_at_one_site_is_not_released_and_the_site_is_named(place: Place) -> None:
    with pytest.raises(NotReleased, match="worst all min 0.9 at pump-2, which has 0.7") as refused:
        place.make("r-1", 0.99, 0.7)
    assert refused.value.exit_status == 2
    assert not place.catalogue.versions()


def test_what_nobody_could_judge_is_not_released(place: Place) -> None:
    folder, result = place.run("r-1", 0.99)
    result["sites"].append({"site": "pump-2", "nodes": ["pump-2"]})
    with pytest.raises(NotReleased, match="at pump-2: nothing was heard"):
        make(folder, result, place.project, place.folder / "releases")


def test_the_champion_is_what_the_next_release_is_held_against(place: Place) -> None:
    champion = place.make("r-1", 0.99)
    assert place.make("r-2", 0.92), "no champion yet"
    place.catalogue.promote(1)
    with pytest.raises(NotReleased, match="max_drop"):
        place.make("r-3", 0.92)
    found = read(place.make("r-4", 0.98))
    assert (found.manifest.about.version, found.manifest.about.replaces) == (3, read(champion).digest)


def test_other_code_than_the_runs_is_not_released_under_its_name(place: Place) -> None:
    run = place.run("r-1", 0.99)
    with (place.project / "detector" / "features.py").open("a") as file:
        file.write("# another day\n")
    with pytest.raises(NotReleased, match="is not the code of r-1"):
        make(*run, place.project, place.folder / "releases")


def test_names_move_from_one_release_to_the_next_and_back(place: Place) -> None:
    for name in ("r-1", "r-2"):
        place.make(name, 0.99)
    assert place.catalogue.aliases() == {"challenger": 2}
    assert place.catalogue.promote(1) == {"champion": 1, "challenger": 2}
    assert place.catalogue.promote("challenger") == {"champion": 2, "previous": 1}
    assert place.catalogue.promote("champion") == {"champion": 2, "previous": 1}, "nothing changes"
    assert place.catalogue.promote("previous") == {"champion": 1, "previous": 2}


def test_a_release_that_was_changed_is_not_promoted(place: Place) -> None:
    file = place.make("r-1", 0.99)
    file.write_bytes(file.read_bytes().replace(b"rounds", b"Rounds", 1))
    with pytest.raises(Untrusted, match="not the one that the release's manifest names"):
        place.catalogue.promote(1)
    assert place.catalogue.aliases() == {"challenger": 1}


@pytest.mark.parametrize("wanted", ["9", "champion", "latest", "-1", "¹"])
def test_a_release_that_is_not_there_is_said_with_those_that_are(place: Place, wanted: str) -> None:
    place.make("r-1", 0.99)
    with pytest.raises(ReleaseNotFound, match="there are: 1, challenger"):
        place.catalogue.read(wanted)


@pytest.mark.parametrize("text", ["", "[]", '{"champion": "1"}', '{"winner": 1}', "{", '{"champion": true}'])
def test_a_broken_list_of_names_is_one_error(place: Place, text: str) -> None:
    place.make("r-1", 0.99)
    (place.catalogue.folder / "aliases.json").write_text(text)
    with pytest.raises(Corrupted, match=r"aliases\.json"):
        place.catalogue.read("champion")


def test_a_lineage_of_other_bytes_is_one_error(place: Place) -> None:
    found = read(place.make("r-1", 0.99))
    for text in (b"[]", b"{}", b"\xff", b"[" * 100_000):
        data = wire.encode(found.manifest.about, {**found.parts, wire.LINEAGE: text})
        with pytest.raises(Corrupted, match="lineage of release 1"):
            lineage(wire.decode(data))


def test_the_commands_make_list_show_verify_and_promote(place: Place) -> None:
    place.run("r-1", 0.99)
    made = place.reuna("make", "--runs", str(place.folder / "runs"), "--json")
    said = json.loads(made.stdout)
    assert (said["version"], said["run"], said["gates"]["decision"]) == (1, "r-1", "pass")
    assert place.reuna("promote").stdout == "champion 1\n"
    (line,) = json.loads(place.reuna("list", "--json").stdout)
    assert (line["digest"], line["aliases"]) == (said["digest"], ["champion"])
    assert place.reuna("show").stdout.startswith("# pumps 1\n")
    assert json.loads(place.reuna("show", "1", "--json").stdout)["lineage"]["run"] == "r-1"
    verified = RUN.invoke(app, ["release", "verify", said["file"]])
    assert said["digest"] in verified.stdout
    gone = RUN.invoke(app, ["release", "verify", said["file"] + "x"])
    assert isinstance(gone.exception, Corrupted)
    gate = ["gate", "--project", str(place.project), "--runs", str(place.folder / "runs")]
    judged = RUN.invoke(app, [*gate, "--releases", str(place.folder / "releases"), "--json"])
    assert json.loads(judged.stdout)["champion"] == "r-1", "the catalogue's champion by itself"


def test_a_card_says_what_foreign_names_say_and_does_not_obey_them(place: Place) -> None:
    folder, result = place.run("r-1", 0.99)
    result["sites"][0]["site"] = "a|b\n# <script>\x1b[2J"
    found = make(folder, result, place.project, place.folder / "releases").release
    card = found.parts[wire.CARD].decode()
    assert "a\\|b" in card
    assert "<script>" not in card
    assert "\x1b" not in card


def test_make_signs_where_the_keys_are_and_says_what_is_there_when_it_cannot(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trust_keys, "COST", 2**4)
    trust = place.folder / "trust"
    places = ["--runs", str(place.folder / "runs"), "--trust", str(trust)]
    place.run("r-1", 0.99)
    early = place.reuna("make", "--sign", *places)
    assert isinstance(early.exception, KeyProblem)
    assert not place.catalogue.versions(), "asked to sign, and no keys: nothing is made"
    assert "not signed: no key that signs releases" in place.reuna("make", *places).stdout

    init(Ceremony(trust, time.time(), lambda _: b"words"), "line-4", 1, 1, b"words")
    (place.folder / "right").write_text("words\n")
    (place.folder / "wrong").write_text("swords\n")
    right, wrong = (["--passphrase-file", str(place.folder / name)] for name in ("right", "wrong"))
    made = place.reuna("make", *places, *right, "--json")
    assert json.loads(made.stdout)["signature"]["path"] == "releases/pumps-0002"
    failed = place.reuna("make", *places, *wrong)
    assert isinstance(failed.exception, KeyProblem)
    assert "release 3 is in" in failed.exception.message
    assert "not signed" in failed.exception.message
    assert failed.exception.next_step.endswith("Then `reuna release sign 3`.")
    states = [
        each["signature"]["state"] for each in json.loads(place.reuna("list", *places[2:], "--json").stdout)
    ]
    assert states == ["unsigned", "signed", "unsigned"]
    assert place.reuna("sign", "3", *places[2:], *right).stdout == "signed: releases/pumps-0003\n"
    assert "not signed: --no-sign" in place.reuna("make", "--no-sign", *places, *right).stdout


def asks_a_second_person(place: Place) -> None:
    settings = place.project / "reuna.toml"
    settings.write_text(settings.read_text() + "\n[release]\napproval = true\n")


YES = {"id": "3f9a01bc", "action": "releases.make", "by": "anna", "decided": "approved", "decided_by": "ben"}


def test_a_release_that_needs_a_second_person_is_made_with_their_word_and_shows_it(place: Place) -> None:
    asks_a_second_person(place)
    asked: list[ReleaseAsked] = []

    def approve(one: ReleaseAsked) -> dict[str, Any]:
        asked.append(one)
        assert place.catalogue.versions() == [], "nothing is there before they agree"
        return {**YES, "decided_at": 3.0, "summary": one.summary()}

    made = make(*place.run("r-1", 0.99), place.project, place.folder / "releases", approve=approve)
    (one,) = asked
    assert (one.project, one.version, one.run, one.digest) == ("pumps", 1, "r-1", made.release.digest)
    assert one.gates.startswith("every gate holds at every site")
    assert "Proposed by anna, allowed by ben (3f9a01bc)." in place.reuna("show", "1").stdout
    assert json.loads(place.reuna("show", "1", "--json").stdout)["approval"]["decided_by"] == "ben"


def test_without_a_second_persons_word_there_is_no_release(place: Place) -> None:
    asks_a_second_person(place)

    def refuse(_asked: ReleaseAsked) -> dict[str, Any]:
        raise NotReleased("pumps 1 waits for a second person")

    run = place.run("r-1", 0.99)
    for approve in (refuse, None):
        with pytest.raises(NotReleased, match="second person"):
            make(*run, place.project, place.folder / "releases", approve=approve)
    assert place.catalogue.versions() == []


def test_nobody_is_asked_about_a_model_that_a_gate_stops(place: Place) -> None:
    asks_a_second_person(place)

    def approve(_asked: ReleaseAsked) -> dict[str, Any]:
        raise AssertionError("somebody was asked")

    with pytest.raises(NotReleased, match="not to be released"):
        make(*place.run("r-1", 0.5), place.project, place.folder / "releases", approve=approve)


def test_who_is_not_signed_in_is_told_to(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    asks_a_second_person(place)
    place.run("r-1", 0.99)
    monkeypatch.setattr("reuna.cli.people.session_file", lambda: place.folder / "session.json")
    done = place.reuna("make", "--runs", str(place.folder / "runs"))
    assert isinstance(done.exception, NotSignedIn)


def test_a_broken_word_of_a_second_person_is_one_error(place: Place) -> None:
    file = place.make("r-1", 0.99)
    file.with_name("0001.approval.json").write_text("{")
    with pytest.raises(Corrupted, match=r"0001\.approval\.json cannot be read"):
        place.catalogue.approval(1)


def test_what_releases_and_trust_leave_in_the_project_is_no_code_of_it(place: Place) -> None:
    run = place.run("r-1", 0.99)
    init(Ceremony(place.project / "trust", time.time(), lambda _: b""), "line-4", 1, 1, None)
    for version in (1, 2):
        made = make(*run, place.project, place.project / "releases")
        assert made.release.manifest.about.version == version
        Catalogue.of(place.project / "releases", "pumps").promote(version)


def test_a_release_carries_the_bill_of_its_folders_lock(place: Place) -> None:
    found = read(place.make("r-1", 0.95))
    bill = json.loads(found.parts[SBOM])
    assert [each["purl"] for each in bill["components"]] == ["pkg:pypi/numpy@2.1.0", "pkg:pypi/reuna@0.1.0"]
    code = digest_bytes(found.parts[wire.CODE])
    assert bill["metadata"]["component"]["properties"] == [{"name": "reuna:code", "value": code}]
    assert wire.PROVENANCE not in found.parts


def test_a_release_of_a_build_carries_the_builds_bill_and_provenance(place: Place) -> None:
    data = assemble(in_folder(place.project))
    build = decode(data)
    claim = Claim("code.build.tar", build.digest, "4" * 40)
    file = place.folder / "x.tar"
    write(Made(data, build, claim), file, KEY)
    run = place.run("r-1", 0.95)
    keep_build(file, run[0])
    (place.project / "requirements.lock").write_text("numpy==9.9.9\nreuna==0.1.0\n")
    found = make(*run, place.project, place.folder / "releases").release
    assert found.parts[SBOM] == build.parts[SBOM], "not of the lock of today"
    judged = judge(found.parts[wire.PROVENANCE], build.digest, [KEY.public_key().public_bytes_raw().hex()])
    assert judged.claim.commit == "4" * 40
    (run[0] / f"{KEPT}.intoto.json").write_bytes(state(Claim("x", "5" * 64, "4" * 40)))
    with pytest.raises(Untrusted, match="not of this one"):
        make(*run, place.project, place.folder / "releases")


def test_a_kept_build_of_other_code_than_the_runs_is_not_believed(place: Place) -> None:
    run = place.run("r-1", 0.95)
    files = in_folder(place.project)
    other = assemble({**files, "detector/more.py": b"# more\n"})
    (run[0] / KEPT).write_bytes(other)
    with pytest.raises(NotReleased, match="a build of other code"):
        make(*run, place.project, place.folder / "releases")


def test_what_a_run_told_of_data_approvals_and_heads_stands_in_the_lineage(place: Place) -> None:
    data = [{"node": "pump-1", "samples": 81, "fingerprint": "f1" * 32, "files": 3, "bytes": 9}]
    head = {"node": "n", "ledger": "l", "seq": 1, "at": 1.0, "key": "00", "countersignature": "00"}
    approvals = {"unseen": ["pump-1"]}
    found = read(place.make("r-1", 0.95, data=data, heads=[head], approvals=approvals))
    said = lineage(found)
    assert (said["data"], said["heads"], said["approvals"]) == (data, [head], approvals)
    assert f"| pump-1 | 81 | 3 | unknown | {'f1' * 32} |" in found.parts[wire.CARD].decode()
    assert not {"data", "heads", "approvals"} & lineage(read(place.make("r-2", 0.95))).keys()
