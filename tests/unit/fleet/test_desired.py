"""A directory of TOML and a fleet: read, compared, signed and published; nothing that was signed is lost."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from reuna.adapters import trust_keys
from reuna.cli import app
from reuna.core.desired import Listed, Rolled, Trained
from reuna.core.errors import (
    KeyProblem,
    NotUsable,
    ReunaError,
    RolloutProblem,
    SettingsError,
    Unreachable,
    Untrusted,
)
from reuna.core.rollout import RolloutSpec, Wave
from reuna.core.trigger import Trigger
from reuna.fleet import desired as gitops
from reuna.fleet import trust
from reuna.fleet.layout import Fleet
from reuna.fleet.release import Catalogue
from reuna.fleet.trained import Workplace
from reuna.fleet.trust import Ceremony
from reuna.trust import publish
from reuna.trust.publish import public_of
from reuna.trust.targets import Target
from reuna.wire.build import sha256
from reuna.wire.release import decode
from tests.releases import release

RUN = CliRunner()
EDGES = {"press-1": "north", "press-2": "north", "oven-1": "south"}
STATE = """
[fleet]
name = "mill"
[cohorts.canary]
members = ["press-1"]
[projects.pumps]
champion = 2
rollout = true
[placements.pumps]
project = "pumps"
waves = ["canary", "all"]
soak_s = 60
"""


class Cloud:
    """Publishes what lies in a trust folder, and has edges that take it when a test says so."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.mark = folder, 0
        self.held: dict[str, list[dict[str, Any]]] = {}
        self.behind = False  #: it has another trust folder
        self.eager = False
        self.asked = 0
        self.clockwork: dict[str, Trigger] = {}
        self.begun: list[RolloutSpec] = []
        self.busy = False  #: another rollout goes on, which nobody is told of
        self.phase = "done"  #: of the newest rollout

    def rollouts(self) -> list[dict[str, Any]]:
        return [
            {
                "project": each.project,
                "version": each.version,
                "phase": self.phase if each is self.begun[-1] else "done",
            }
            for each in reversed(self.begun)
        ]

    def start_rollout(self, spec: RolloutSpec) -> str:
        if self.busy:
            raise RolloutProblem("rollout by-hand of ovens goes on")
        assert all(each.number != spec.version for each in self.listed() if each.project == spec.project), (
            "it holds every node before anybody may take the release"
        )
        self.begun.append(spec)
        return "7" if spec.approval else ""

    def triggers(self) -> list[dict[str, Any]]:
        return [
            {**msgspec.to_builtins(each), "next": 1.0, "last": None, "wrong": ""}
            for each in self.clockwork.values()
        ]

    def put_trigger(self, trigger: Trigger) -> None:
        self.clockwork[trigger.name] = trigger

    def drop_trigger(self, name: str) -> None:
        del self.clockwork[name]

    def listed(self) -> list[Target]:
        ceremony = Ceremony(self.folder, time.time(), lambda _path: b"")
        from reuna.trust.targets import read_all

        found = read_all(ceremony.repository.targets("targets").signed)
        return [each for each in found if each.project and not self.behind]

    def take(self) -> None:
        """Every edge takes what is for it, and says so."""
        for edge, site in EDGES.items():
            self.held[edge] = [
                {
                    "path": each.path,
                    "project": each.project,
                    "version": each.number,
                    "digest": each.sha256,
                    "at": 1.0,
                }
                for each in self.listed()
                if not each.where or {edge, site} & set(each.where)
            ]

    def releases(self, after: int = 0, wait_s: int = 0) -> dict[str, Any]:
        self.mark, self.asked = self.mark + 1, self.asked + 1
        if self.eager:
            self.take()
        return {
            "mark": self.mark, "fleet": "mill", "fogs": {"north": ["press-1", "press-2"], "south": ["oven-1"]},
            "releases": [
                {"path": each.path, "project": each.project, "version": each.number, "digest": each.sha256,
                 "size": each.size, "where": list(each.where)}
                for each in self.listed()
            ],
            "nodes": {edge: {"at": 1.0, "held": held} for edge, held in self.held.items()},
        }  # fmt: skip


class Place:
    """A desired state in a folder, a catalogue, a trust folder and a cloud."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.trust = folder, folder / "trust"
        trust.make_trust(self.trust, "mill", time.time())
        self.catalogue = Catalogue.of(folder / "releases", "pumps")
        for version in (1, 2, 3):
            data = release(version)
            self.catalogue.add(decode(data), data)
        self.catalogue.promote(1)
        self.cloud = Cloud(self.trust)
        self.write(STATE)
        fleet = Fleet("mill", folder, (), {"north": ("press-1", "press-2"), "south": ("oven-1",)})
        monkeypatch.setattr("reuna.cli.run.open_at", lambda _where: (fleet, self.cloud))
        monkeypatch.chdir(folder)

    def write(self, text: str, name: str = "pumps.toml") -> None:
        (self.folder / "state").mkdir(exist_ok=True)
        (self.folder / "state" / name).write_text(text)

    def run(self, *words: str) -> Any:
        return RUN.invoke(app, [*words, "state", "--fleet", "mill"])

    def plan(self) -> dict[str, Any]:
        done = self.run("plan", "--json")
        assert done.exit_code in (0, 10), done
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def listed(self) -> list[tuple[int, tuple[str, ...], int]]:
        return sorted((each.number, each.where, each.version) for each in self.cloud.listed())


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(tmp_path, monkeypatch)


def test_a_plan_is_shown_carried_out_and_then_nothing_is_left(place: Place) -> None:
    shown = place.run("plan")
    assert (shown.exit_code, shown.stdout.splitlines()) == (10, [
        "~ champion of pumps: 1 → 2",
        "+ rollout of pumps: 2",
        "1 to add, 1 to change, 0 to remove; 0 rollouts go on, 0 nodes differ",
    ])  # fmt: skip
    place.cloud.phase = "wave"
    first = place.run("apply")
    assert first.exit_code == 10, "the rollout goes on"
    (begun,) = place.cloud.begun
    assert (begun.version, begun.waits, begun.terms.soak_s) == (2, True, 60.0)
    assert begun.sha256 == sha256(release(2))
    assert begun.waves == (Wave("canary", ("press-1",)), Wave("all"))
    assert "left:\n… rollout of pumps 2 goes on: reuna rollout status\n! oven-1 at south" in first.stderr
    assert place.listed() == [(2, (), 1)]
    assert place.catalogue.aliases()["champion"] == 2
    place.cloud.take()
    assert place.run("apply").exit_code == 10
    place.cloud.phase = "done"
    done = place.run("plan")
    assert (done.exit_code, done.stdout) == (0, "mill is as wanted\n")
    again = place.run("apply")
    assert again.exit_code == 0
    assert place.listed() == [(2, (), 1)], "nothing is signed anew"
    assert len(place.cloud.begun) == 1


def test_with_wait_it_goes_on_to_the_end(place: Place) -> None:
    place.cloud.eager = True
    done = place.run("apply", "--wait", "30", "--json")
    assert done.exit_code == 0, done
    found = json.loads(done.stdout)
    name = place.cloud.begun[0].rollout
    assert found["done"] == [
        f"rollout {name} begins", "champion of pumps is 2", "published: pumps 2 for every node"
    ]  # fmt: skip
    assert found["counts"] == {"add": 0, "change": 0, "remove": 0, "going": 0, "drift": 0}


def test_back_to_an_older_champion_is_a_rollout_too(place: Place) -> None:
    place.cloud.eager = True
    assert place.run("apply", "--wait", "30").exit_code == 0
    place.write(STATE.replace("champion = 2", "champion = 3"))
    assert place.run("apply", "--wait", "30").exit_code == 0
    assert [each[0] for each in place.listed()] == [2, 3]
    place.write(STATE)
    place.cloud.start_rollout = lambda spec: place.cloud.begun.append(spec) or ""  # type: ignore[assignment, func-returns-value]
    done = place.run("apply", "--wait", "30")
    assert "~ rollout of pumps: 3 → 2" in done.stdout
    assert [each.version for each in place.cloud.begun] == [2, 3, 2]
    assert (done.exit_code, [each[0] for each in place.listed()]) == (0, [2, 3])


def test_a_change_by_hand_shows_and_is_taken_back(place: Place) -> None:
    place.cloud.eager = True
    place.run("apply", "--wait", "30")
    place.catalogue.promote(3)
    trust.add_bytes(Ceremony(place.trust, time.time(), lambda _: b""), release(3), "release", "by-hand")
    shown = place.run("plan")
    assert shown.exit_code == 10
    assert "~ champion of pumps: 3 → 2\n- release pumps 3: every node\n" in shown.stdout
    assert place.run("apply").exit_code == 0
    assert place.listed() == [(2, (), 1)]
    assert place.catalogue.aliases()["champion"] == 2


def test_what_lies_beside_releases_in_the_list_is_left_alone(place: Place) -> None:
    other = Ceremony(place.trust, time.time(), lambda _: b"")
    trust.add_bytes(other, b"a template", "policy-template", "works")
    trust.add_bytes(other, release(1, "ovens"), "release", "ovens")
    place.run("apply")
    paths = {each.path for each in Ceremony(place.trust, time.time(), lambda _: b"").listed("targets")}
    assert paths == {"policy-templates/works", "releases/ovens", "releases/pumps-0002"}


def test_where_a_signature_is_lacking_it_says_which_and_keeps_those_there_are(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trust_keys, "COST", 2**4)
    folder = place.folder / "two"
    trust.init(Ceremony(folder, time.time(), lambda _: b"words"), "mill", 2, 2, b"words")
    away = place.folder / "away.key"
    release_keys = sorted((folder / "keys").glob("release-*.key"))
    release_keys[1].rename(away)
    (place.folder / "words").write_text("words\n")
    place.cloud.folder = folder
    words = ("--trust", "two", "--passphrase-file", "words")
    first = place.run("apply", *words)
    assert first.exit_code == 10
    needed = publish.key_of(public_of(Ceremony(folder, 0, lambda _: b"words").key(away))).keyid
    assert f"targets waits for 1 more signature, of {needed[:8]}: reuna trust sign" in first.stderr
    assert place.cloud.listed() == []
    staged = (folder / "staged" / "targets.json").read_bytes()
    assert place.run("apply", *words).exit_code == 10
    assert (folder / "staged" / "targets.json").read_bytes() == staged, "the signature there is stays"
    waits = place.run("plan", "--trust", "two")
    assert f"… targets waits for 1 more signature, of {needed[:8]}" in waits.stdout
    trust.sign_file(folder / "staged" / "targets.json", Ceremony(folder, 0, lambda _: b"words").key(away))
    place.run("apply", *words)
    assert [each.number for each in place.cloud.listed()] == [2]


def test_without_online_keys_what_is_signed_waits_to_be_carried(place: Place) -> None:
    for key in (place.trust / "online").glob("*.key"):
        key.rename(place.folder / key.name)
    done = place.run("apply")
    assert done.exit_code == 10
    assert "targets is signed; reuna trust publish where the online keys are" in done.stderr


def test_a_cloud_with_another_trust_folder_is_not_waited_for_for_ever(place: Place) -> None:
    place.cloud.behind = True
    done = place.run("apply")
    assert done.exit_code == 10
    assert place.cloud.asked < 5


def test_without_a_trust_folder_it_says_where_it_is_needed(place: Place) -> None:
    done = place.run("apply", "--trust", "nowhere")
    assert isinstance(done.exception, KeyProblem)
    assert "nowhere is no trust folder" in str(done.exception)
    assert place.run("plan", "--trust", "nowhere").exit_code == 10, "to look, none is needed"


def test_what_this_fleet_cannot_be_is_said_with_its_place_and_nothing_is_done(place: Place) -> None:
    place.write("[placements.x]\nproject = 'ovens'\nversion = 9\nwaves = ['nort']\n", "more.toml")
    for command in ("plan", "apply"):
        done = place.run(command)
        assert isinstance(done.exception, SettingsError)
        assert done.exception.message.splitlines() == [
            "more.toml:1:2: placements.x is of version 9: the catalogue of ovens has none",
            "more.toml:4:1: placements.x.waves names 'nort', which is no cohort, site or node of this fleet",
        ]
    assert place.listed() == []
    assert place.catalogue.aliases()["champion"] == 1


def test_a_release_of_the_catalogue_that_is_damaged_is_not_signed(place: Place) -> None:
    file = place.catalogue.file(2)
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    assert isinstance(place.run("apply").exception, Untrusted)
    assert place.listed() == []


def test_another_release_under_the_name_is_not_signed(place: Place) -> None:
    place.catalogue.file(2).write_bytes(release(3))
    place.write(
        STATE.replace("champion = 2", "champion = 1").replace(
            'project = "pumps"\n', 'project = "pumps"\nversion = 2\n'
        )
    )
    assert isinstance(place.run("apply").exception, Untrusted)
    assert place.listed() == []


@pytest.mark.parametrize(
    ("what", "said"),
    [("nowhere", "is no directory"), ("empty", "there is no TOML file"), ("broken", "not valid TOML")],
)
def test_a_directory_that_says_nothing_is_a_mistake(tmp_path: Path, what: str, said: str) -> None:
    (tmp_path / "empty" / ".git").mkdir(parents=True)
    (tmp_path / "empty" / ".git" / "config.toml").write_text("[fleet]\nname = 'x'\n")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.toml").write_text("[fleet\n")
    with pytest.raises(ReunaError, match=said):
        gitops.read_directory(tmp_path / what)


def test_files_in_folders_are_named_with_their_folder(tmp_path: Path) -> None:
    (tmp_path / "north").mkdir()
    for name in ("a.toml", "north/a.toml"):
        (tmp_path / name).write_text("[fleet]\nname = 'mill'\n[projects.p]\nchampion = 1\n")
    with pytest.raises(SettingsError, match=r"^north/a\.toml:3:2: projects\.p is said twice$"):
        gitops.read_directory(tmp_path)


def test_the_same_version_with_other_bytes_is_listed_anew_under_its_path(place: Place) -> None:
    ceremony = Ceremony(place.trust, time.time(), lambda _: b"")
    trust.add_bytes(ceremony, release(2, more=b"forged"), "release", "mine")
    wanted = Listed("pumps", 2, sha256(release(2)))
    assert gitops.arrange(ceremony, {"pumps"}, [wanted], lambda _each: release(2)) == {}
    (found,) = Ceremony(place.trust, time.time(), lambda _: b"").listed("targets")
    assert (found.path, found.sha256, found.version) == ("releases/mine", wanted.digest, 2)
    assert gitops.arrange(ceremony, {"pumps"}, [replace(wanted, where=("north",))], lambda _each: b"") == {}
    assert place.listed() == [(2, ("north",), 3)]


def test_a_catalogue_that_cannot_be_read_is_said(place: Place) -> None:
    place.catalogue.file(2).unlink()
    place.catalogue.file(2).mkdir()
    assert isinstance(place.run("plan").exception, NotUsable)


def test_schedules_are_kept_changed_and_ended(place: Place) -> None:
    place.cloud.clockwork["old"] = Trigger("old", "r-1", "01:00")
    place.write("[fleet]\nname='mill'\n[schedules.nightly]\nagain='r-2'\nat='02:30'\ndays=['sun', 'mon']\n")
    shown = place.run("plan")
    assert shown.stdout.splitlines()[:2] == [
        "+ schedule nightly: r-2 again, mon sun 02:30 UTC",
        "- schedule old: r-1 again, every day 01:00 UTC",
    ]
    done = place.run("apply")
    assert done.exit_code == 0, done
    assert place.cloud.clockwork == {"nightly": Trigger("nightly", "r-2", "02:30", ("mon", "sun"))}
    assert place.run("plan").exit_code == 0
    place.write("[fleet]\nname='mill'\n[schedules.nightly]\nagain='r-3'\nat='02:30'\n")
    assert (
        "~ schedule nightly: r-2 again, mon sun 02:30 UTC → r-3 again, every day 02:30 UTC"
        in place.run("plan").stdout
    )


def test_triggers_are_kept_changed_and_ended_as_schedules_are(place: Place) -> None:
    place.cloud.clockwork["old"] = Trigger("old", "r-1", on="nodes", cooldown_s=60.0)
    place.write("[fleet]\nname='mill'\n[triggers.moved]\non='drift'\nagain='r-2'\nmachines=2\n")
    limits = "not within 86400 s of the last, at most 4 in 30 days"
    moved = f"r-2 again, when process drifts at 2 machines or more, {limits}"
    assert place.run("plan").stdout.splitlines()[:2] == [
        f"+ trigger moved: {moved}",
        "- trigger old: r-1 again, when nodes join that the last run did not have, 1 machine or more, "
        "not within 60 s of the last",
    ]
    assert [
        (each["what"], each["after"] and each["after"]["machines"]) for each in place.plan()["changes"]
    ] == [
        ("trigger", 2),
        ("trigger", None),
    ]
    done = place.run("apply")
    assert done.stdout.splitlines()[-2:] == [f"kept: trigger moved: {moved}", "trigger old is over"]
    assert place.run("plan").exit_code == 0
    place.write("[fleet]\nname='mill'\n[triggers.moved]\non='drift'\nagain='r-2'\nmachines=2\nabove=2\n")
    assert "~ trigger moved" in place.run("plan").stdout


def test_what_was_made_last_goes_to_the_canary_by_itself_and_on_when_it_is_promoted(place: Place) -> None:
    place.write(
        "[fleet]\nname='mill'\n"
        "[placements.canary]\nproject='pumps'\nfollows='challenger'\nwaves=['press-1']\n"
        "[placements.rest]\nproject='pumps'\n"
    )
    place.cloud.eager = True
    assert place.run("apply", "--wait", "30").exit_code == 0
    assert place.listed() == [(1, (), 1), (3, ("press-1",), 1)]
    place.catalogue.promote("challenger")
    assert "~ release pumps 3: press-1 → every node" in place.run("plan").stdout
    assert place.run("apply", "--wait", "30").exit_code == 0
    assert place.listed() == [(3, (), 2)]


FROM = """
[fleet]
name = "mill"
[projects.ovens]
release_from = "../ovens"
[placements.ovens]
project = "ovens"
follows = "challenger"
"""


def trained(place: Place, monkeypatch: pytest.MonkeyPatch, *states: str) -> list[Trained]:
    """The cloud has trained by itself: what becomes of it at each look."""
    place.write(FROM)
    asked, made, coming = list[Workplace](), list[Trained](), list(states)

    def look(at: Workplace) -> tuple[Trained, ...]:
        asked.append(at)
        assert at.sources == {"ovens": Path("state/../ovens")}
        state = coming.pop(0) if coming else ""
        return (Trained("ovens", "nightly-1", "schedule nightly", state, "why"),) if state else ()

    def release_them(_at: Workplace, ready: Sequence[Trained]) -> tuple[list[str], list[str]]:
        for each in ready:
            data = release(1, "ovens")
            Catalogue.of(place.folder / "releases", "ovens").add(decode(data), data)
            made.append(each)
        return ["release ovens 1"] * len(ready), []

    monkeypatch.setattr("reuna.fleet.trained.look", look)
    monkeypatch.setattr("reuna.fleet.trained.release", release_them)
    return made


def test_before_the_first_release_a_placement_that_follows_waits_for_it(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(place, monkeypatch)
    done = place.run("plan")
    assert (done.exit_code, done.stdout) == (0, "mill is as wanted\n")


@pytest.mark.parametrize(
    ("state", "status", "line"),
    [
        ("ready", 10, "+ nightly-1 of ovens, schedule nightly, is released next: why"),
        ("waits", 10, "… nightly-1 of ovens, schedule nightly, waits for a second person: why"),
        ("stopped", 0, "✗ nightly-1 of ovens, schedule nightly, is not released: why"),
        ("same", 0, "= nightly-1 of ovens, schedule nightly, taught nothing new: why"),
    ],
)
def test_a_plan_shows_what_becomes_of_what_the_cloud_trained(
    place: Place, monkeypatch: pytest.MonkeyPatch, state: str, status: int, line: str
) -> None:
    trained(place, monkeypatch, state, state)
    done = place.run("plan")
    assert (done.exit_code, done.stdout.splitlines()[0]) == (status, line)
    (found,) = place.plan()["trained"]
    assert (found["run"], found["state"], found["said"]) == ("nightly-1", state, "why")


def test_apply_releases_it_and_signs_it_where_the_challenger_is_wanted(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = trained(place, monkeypatch, "ready")
    place.cloud.eager = True
    done = place.run("apply", "--wait", "30", "--json")
    assert done.exit_code == 0, done
    assert json.loads(done.stdout)["done"] == ["release ovens 1", "published: ovens 1 for every node"]
    assert len(made) == 1
    assert place.listed() == [(1, (), 1)]


def test_what_comes_while_a_second_person_is_waited_for_is_released_too(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = trained(place, monkeypatch, "waits", "ready")
    place.cloud.eager = True
    assert place.run("apply", "--wait", "30").exit_code == 0
    assert (len(made), place.listed()) == (1, [(1, (), 1)])


def test_kept_it_goes_on_through_a_cloud_that_is_away_and_a_mistake_in_the_directory(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = trained(place, monkeypatch, "", "ready", "", "", "", "")
    naps = iter(("away", "away", "mistake", "mended", "end"))
    answer = place.cloud.releases
    troubled = [Unreachable("the cloud does not answer")] * 2

    def releases(after: int = 0, wait_s: int = 0) -> dict[str, Any]:
        if made and place.listed() and not place.cloud.eager:
            place.cloud.eager = True
            place.write("[fleet", "more.toml")
        if place.cloud.asked == 1 and troubled:
            raise troubled.pop()
        if place.cloud.eager and place.cloud.asked > 8:
            raise KeyboardInterrupt
        return answer(after, wait_s)

    def nap(_seconds: float) -> None:
        if next(naps) == "mistake":
            (place.folder / "state" / "more.toml").unlink()

    monkeypatch.setattr(place.cloud, "releases", releases)
    monkeypatch.setattr("reuna.cli.desired.time.sleep", nap)
    done = place.run("apply", "--keep")
    assert len(made) == 1
    assert place.listed() == [(1, (), 1)]
    assert done.stderr.count("the cloud does not answer; looked at again") == 1
    assert done.stderr.count("more.toml:1:") == 1
    assert done.stdout.splitlines()[-1] == "mill is as wanted"
    assert done.exit_code == 130, "ended by Ctrl-C, and by nothing else"


ROLLED = 'release_from = "../ovens"\nrollout = true\n'
OVENS = '[project]\nname = "ovens"\n[rollout]\nwaves = ["oven-1", "all"]\n'


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("", "begins"),
        ("[release]\napproval = true\n", "waits for a second person: reuna proposals approve 7"),
    ],
)
def test_what_was_trained_by_itself_is_rolled_out_by_itself_as_its_project_says(
    place: Place, monkeypatch: pytest.MonkeyPatch, more: str, said: str
) -> None:
    trained(place, monkeypatch, "ready")
    place.write(FROM.replace('release_from = "../ovens"\n', ROLLED))
    (place.folder / "ovens").mkdir()
    (place.folder / "ovens" / "reuna.toml").write_text(OVENS + more)
    place.cloud.eager = True
    done = place.run("apply", "--wait", "30")
    (begun,) = place.cloud.begun
    assert (begun.project, begun.version, begun.waves) == ("ovens", 1, (Wave("oven-1"), Wave("all")))
    assert f"rollout {begun.rollout} {said}" in done.stdout
    assert done.exit_code == 0
    assert "+ rollout of ovens" not in place.run("plan").stdout


def test_a_rollout_that_cannot_begin_is_said_and_its_release_is_not_listed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(place, monkeypatch, "ready")
    place.write(FROM.replace('release_from = "../ovens"\n', ROLLED))
    (place.folder / "ovens").mkdir()
    (place.folder / "ovens" / "reuna.toml").write_text(OVENS)
    place.cloud.eager = place.cloud.busy = True
    done = place.run("apply", "--wait", "1")
    assert done.exit_code == 10
    assert "ovens is not rolled out: rollout by-hand of ovens goes on" in done.stderr
    assert place.listed() == [], "else nodes would take it without a rollout"
    assert "+ rollout of ovens: 1" in place.run("plan").stdout


def test_what_rollouts_have_come_to_is_read_from_the_newest_on() -> None:
    told = [
        {"project": "pumps", "version": 5, "phase": "wave"},
        {"project": "pumps", "version": 4, "phase": "failed"},
        {"project": "fans", "version": 9, "phase": "done"},
        {"project": "pumps", "version": 3, "phase": "done"},
        {"project": "pumps", "version": 2, "phase": "done"},
    ]
    assert gitops.rolled_of(told) == {"pumps": Rolled(5, 3, 2, 5, 5), "fans": Rolled(9, 9, 0, 0, 9)}
