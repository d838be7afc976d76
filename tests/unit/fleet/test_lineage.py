"""Where a model comes from: what was told is shown, what nobody told is unknown, the chain goes to the first."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from reuna.adapters.fingerprint import DATA_KEY, window_of
from reuna.cli import app
from reuna.core.errors import Corrupted, NotUsable, SettingsError, Unreachable
from reuna.fleet import components
from reuna.fleet.bill import KEPT
from reuna.fleet.components import Component
from reuna.fleet.holders import reports
from reuna.fleet.layout import make_fleet
from reuna.fleet.lineage import of_release, of_run
from reuna.fleet.release import Catalogue
from reuna.template import make_project
from reuna.wire import digest_bytes
from reuna.wire import release as wire
from reuna.wire.build import NEEDED, SBOM, encode
from tests.finished import finished
from tests.made_releases import CODE, add, bill

RUN = CliRunner()
PRINT = "f1" * 32
TOLD: dict[str, Any] = {
    "data": [{"node": "pump-1", "samples": 81, "fingerprint": PRINT, "files": 3, "bytes": 4096}],
    "source": {"code": digest_bytes(CODE), "commit": "2" * 40, "remote": "git+https://x.example/p.git"},
    "approvals": {
        "code": [
            {"node": "pump-1", "by": ["anna"], "until": "2027-01-31", "site": "pump-1", "serial": 2,
             "signed_by": ["anna", "otto"]}
        ],
        "code_role": {"version": 3, "threshold": 1, "signed_by": ["ab" * 32]},
        "run": {"proposal": "c0ffee", "digest": "3" * 64, "asked_by": "ida", "asked_at": 1.0,
                "approved_by": "noor", "approved_at": 2.0},
    },
}  # fmt: skip


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    return Catalogue.of(tmp_path / "releases", "pumps")


def reuna(tmp_path: Path, *words: str) -> Any:
    if not (tmp_path / "pumps").is_dir():
        make_project(tmp_path / "pumps", sample=False)
    places = ["--project", str(tmp_path / "pumps"), "--releases", str(tmp_path / "releases")]
    return RUN.invoke(app, [*words, *places, "--runs", str(tmp_path / "runs")])


def held(data: bytes, *nodes: str) -> list[dict[str, Any]]:
    return [{"node": node, "at": 1.0, "digest": digest_bytes(data)} for node in nodes]


def test_it_names_sites_data_code_approvals_holders_and_what_was_replaced(catalogue: Catalogue) -> None:
    first = add(catalogue, 1)
    second = add(catalogue, 2, first.digest)
    add(catalogue, 3, second.digest, **TOLD)
    catalogue.promote(3)
    found = of_release(catalogue, "champion", held(catalogue.file(3).read_bytes(), "pump-2", "pump-1"))
    assert found["release"]["version"] == 3
    (site,) = found["sites"]
    assert site["nodes"] == [
        {
            "node": "pump-1",
            "data": {
                "samples": 81,
                "fingerprint": PRINT,
                "files": 3,
                "bytes": 4096,
                "rows": 0,
                "setup": "",
            },
        }
    ]
    assert found["source"]["commit"] == "2" * 40
    assert found["approvals"]["run"]["approved_by"] == "noor"
    assert [each["node"] for each in found["held_by"]] == ["pump-1", "pump-2"]
    assert [each["version"] for each in found["replaces"]] == [2, 1]


def test_what_nobody_told_is_unknown_and_not_nothing(catalogue: Catalogue) -> None:
    add(catalogue, 1)
    found = of_release(catalogue, 1)
    assert (found["held_by"], found["approvals"]) == (None, None)
    assert of_run(catalogue, finished("r-8"))["source"] is None
    assert found["sites"][0]["nodes"] == [{"node": "pump-1", "data": None}]
    assert of_release(catalogue, 1, [])["held_by"] == [], "asked, and nobody holds it"


def test_the_two_people_of_a_release_are_named_beside_those_of_its_run(
    tmp_path: Path, catalogue: Catalogue
) -> None:
    said = {"id": "beef", "by": "ida", "decided_by": "otto", "decided_at": 3.0, "summary": "pumps 1"}
    found = add(catalogue, 1, approvals=TOLD["approvals"])
    catalogue.add(found, catalogue.file(1).read_bytes(), said)
    assert of_release(catalogue, 1)["released"] == said
    shown = reuna(tmp_path, "lineage", "1").stdout
    assert "release     asked for by ida, approved by otto (proposal beef)" in shown
    assert "run         asked for by ida, approved by noor" in shown
    add(catalogue, 2)
    assert of_release(catalogue, 2)["released"] is None


def test_another_release_that_a_node_holds_is_not_this_one(catalogue: Catalogue) -> None:
    add(catalogue, 1)
    assert of_release(catalogue, 1, held(b"another file", "pump-1"))["held_by"] == []


def test_a_chain_ends_where_the_catalogue_does_and_says_so(catalogue: Catalogue) -> None:
    add(catalogue, 7, "9" * 64)
    assert of_release(catalogue, 7)["replaces"] == [{"digest": "9" * 64, "version": None}]


def test_a_run_that_was_not_released_has_a_lineage_too(catalogue: Catalogue) -> None:
    add(catalogue, 1)
    found = of_run(catalogue, finished("r-9", **TOLD))
    assert (found["release"], found["run"], found["held_by"], found["replaces"]) == (None, "r-9", None, [])
    assert of_run(catalogue, finished("r-1"))["release"]["version"] == 1, "and one that was names its release"


def test_the_command_shows_the_champion_else_the_newest_release_else_the_newest_run(
    tmp_path: Path, catalogue: Catalogue
) -> None:
    folder = tmp_path / "runs" / "r-9"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(finished("r-9", **TOLD)))
    assert "pumps: not released" in reuna(tmp_path, "lineage").stdout
    add(catalogue, 1, **TOLD)
    add(catalogue, 2)
    assert "release 2 (challenger)" in reuna(tmp_path, "lineage").stdout
    catalogue.promote(1)
    shown = reuna(tmp_path, "lineage").stdout
    for words in (
        "release 1 (champion)",
        f"81 samples, 3 files of 4096 bytes, fingerprint {PRINT}",
        "commit      " + "2" * 40,
        "anna, until 2027-01-31; policy 2 of pump-1, signed by anna, otto",
        "asked for by ida, approved by noor",
        "held by     unknown: ask a fleet with --fleet",
        "replaced    nothing",
    ):
        assert words in shown
    assert json.loads(reuna(tmp_path, "lineage", "r-9", "--json").stdout)["run"] == "r-9"
    unknown = reuna(tmp_path, "lineage", "2").stdout
    assert "approved by unknown" in unknown
    assert "data unknown" in unknown


def test_a_lineage_that_says_nonsense_is_one_error(catalogue: Catalogue) -> None:
    found = add(catalogue, 1)
    said = json.loads(found.parts[wire.LINEAGE])
    for nonsense in ({"sites": [{}]}, {"data": [{"node": 7}]}, {"approvals": []}, {"rounds": "many"}):
        data = wire.encode(
            found.manifest.about, {**found.parts, wire.LINEAGE: json.dumps({**said, **nonsense}).encode()}
        )
        catalogue.file(1).write_bytes(data)
        with pytest.raises(Corrupted, match="release 1"):
            of_release(catalogue, 1)


# --- where -----------------------------------------------------------------------------------------


def test_a_component_is_found_in_the_releases_and_builds_that_have_it(
    tmp_path: Path, catalogue: Catalogue
) -> None:
    add(catalogue, 1, packages={"numpy": "2.0.0"})
    add(catalogue, 2, packages={"numpy": "2.1.0", "ruamel_yaml": "0.18"})
    catalogue.promote(2)
    dist = tmp_path / "pumps" / "dist"
    parts = {**dict.fromkeys(NEEDED, b"{}\n"), SBOM: bill(numpy="2.1.0")}
    found = reuna(tmp_path, "where", "--component", "NumPy")
    dist.mkdir()
    (dist / "pumps-1.build.tar").write_bytes(encode("pumps", parts))
    kept = tmp_path / "runs" / "r-1" / KEPT
    kept.parent.mkdir(parents=True)
    kept.write_bytes(encode("others", parts))
    assert found.exit_code == 0
    found = reuna(tmp_path, "where", "--component", "numpy@2.1.0", "--json")
    rows = json.loads(found.stdout)
    assert [(each["what"], each["project"], each["version"]) for each in rows] == [
        ("release", "pumps", "2.1.0"),
        ("build", "pumps", "2.1.0"),
        ("build", "others", "2.1.0"),
    ]
    assert rows[0]["aliases"] == ["champion"]
    text = reuna(tmp_path, "where", "--component", "ruamel.yaml").stdout
    assert text.startswith("ruamel-yaml 0.18  release pumps 2 (champion)")
    assert "held by: unknown" in text


def test_a_component_says_which_nodes_hold_it(catalogue: Catalogue, tmp_path: Path) -> None:
    add(catalogue, 1)
    said = held(catalogue.file(1).read_bytes(), "pump-7")

    def left(file: Path, error: Exception) -> None:
        raise AssertionError(file) from error

    (row,) = components.find(Component("numpy"), tmp_path / "releases", [], said, left)
    assert [each["node"] for each in row["held_by"]] == ["pump-7"]


@pytest.mark.parametrize("component", ["scipy", "numpy@1.0", "num"])
def test_a_component_that_is_in_nothing_ends_with_status_1(
    tmp_path: Path, catalogue: Catalogue, component: str
) -> None:
    add(catalogue, 1)
    found = reuna(tmp_path, "where", "--component", component)
    assert (found.exit_code, found.stdout) == (1, "")


def test_not_found_is_not_said_of_what_could_not_be_read(tmp_path: Path, catalogue: Catalogue) -> None:
    add(catalogue, 1)
    catalogue.file(2).write_bytes(b"no release")
    found = reuna(tmp_path, "where", "--component", "scipy")
    assert isinstance(found.exception, Corrupted)
    assert "0002.release" in str(found.exception)
    assert "left out:" in reuna(tmp_path, "where", "--component", "numpy").stderr


@pytest.mark.parametrize("text", ["", "@1", "numpy@"])
def test_no_component_is_one_error(text: str) -> None:
    with pytest.raises(SettingsError, match="names no component"):
        Component.parse(text)


@pytest.mark.parametrize("broken", [b"", b"[]", b'{"components":[{}]}', b'{"components":[[]]}', b"[" * 100_000,
                                    b'{"components":[{"name":7,"version":"1"}]}'])  # fmt: skip
def test_a_bill_that_cannot_be_read_is_one_error(broken: bytes) -> None:
    with pytest.raises(Corrupted, match=SBOM):
        Component("numpy").versions_in(broken)


def test_a_release_is_searched_by_its_own_bill(catalogue: Catalogue) -> None:
    found = add(catalogue, 1)
    assert Component("numpy").versions_in(found.parts[SBOM]) == ["2.1.0"]
    assert wire.encode(found.manifest.about, found.parts) == catalogue.file(1).read_bytes()


def test_nodes_are_asked_through_their_cloud_and_what_they_refused_they_do_not_hold() -> None:
    held = {"path": "releases/p", "project": "pumps", "version": 1, "digest": "1" * 64, "at": 1.0}

    class Cloud:
        def releases(self, after: int = 0, wait_s: int = 0) -> dict[str, Any]:
            nodes = {
                "b": {"at": 3.0, "held": [held, {**held, "digest": "2" * 64, "refused": "mismatch"}]},
                "a": {"at": 2.0, "held": [{**held, "version": 2, "at": 5.0}]},
            }
            return {"mark": 1, "fleet": "local", "fogs": {"f": ["a", "b"]}, "releases": [], "nodes": nodes}

    class Other(Cloud):
        def releases(self, after: int = 0, wait_s: int = 0) -> dict[str, Any]:
            return {"nodes": {}}

    told = [(each["node"], each["version"], each["at"]) for each in reports(Cloud())]
    assert told == [("a", 2, 5.0), ("b", 1, 1.0)]
    with pytest.raises(Unreachable):
        reports(Other())


def test_a_node_shows_the_fingerprint_of_its_data_to_who_stands_at_it(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "t.csv").write_text("t\n1\n")
    fleet = make_fleet(tmp_path / "fleet", "local", {"fog-1": {"edge-1": data}})
    settings = str(fleet.folder / "edge-1" / "edge.toml")
    early = RUN.invoke(app, ["evidence", "fingerprint", settings])
    assert isinstance(early.exception, NotUsable)
    key = fleet.folder / "edge-1" / "state" / DATA_KEY
    told = window_of(data, key)
    assert told
    found = json.loads(RUN.invoke(app, ["evidence", "fingerprint", settings, "--json"]).stdout)
    assert found == {"fingerprint": told.fingerprint, "files": 1, "bytes": 4}
    assert told.fingerprint in RUN.invoke(app, ["evidence", "fingerprint", settings]).stdout
    shutil.rmtree(data)
    assert isinstance(RUN.invoke(app, ["evidence", "fingerprint", settings]).exception, NotUsable)
