"""A project's own CI file is carried out on a real `git push`, step by step, as a forge would."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from drills import push as drill
from drills.pushing.forge import Forge, Pushed
from drills.pushing.gitlab import Refused, applies, expanded, holds, read
from drills.pushing.runner import record_of
from reuna.fleet.built import read as read_build
from reuna.fleet.client import Operator
from reuna.fleet.layout import Fleet, make_fleet
from reuna.fleet.release import Catalogue
from reuna.fleet.session import ready
from reuna.fleet.supervise import Supervisor
from reuna.template import make_project
from tests.repositories import commit, git

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]
ONE = "work:\n  script:\n    - "


def forge_of(folder: Path, files: dict[str, str | bytes], settings: dict[str, str] | None = None) -> Forge:
    project = folder / "pumps"
    project.mkdir()
    git(project, "init", "--quiet", "-b", "main", ".")
    commit(project, files)
    return Forge.make(folder / "forge", project, settings)


def lines_of(pushed: Pushed) -> list[str]:
    """The lines that the push showed."""
    return [line.removeprefix("remote: ").rstrip() for line in pushed.output.splitlines()]


@pytest.fixture
def pumps(tmp_path: Path) -> Path:
    """What `reuna init` makes, in a repository."""
    project = tmp_path / "pumps"
    make_project(project, sample=True)
    git(project, "init", "--quiet", "-b", "main", ".")
    commit(project, {})
    return project


def test_without_a_fleet_a_new_project_is_tested_and_built_on_every_branch_and_nothing_is_released(
    pumps: Path,
) -> None:
    tests, release = read((pumps / ".gitlab-ci.yml").read_text()).jobs
    main = {"CI_COMMIT_BRANCH": "main", "CI_DEFAULT_BRANCH": "main"}
    fleet = {"REUNA_FLEET": "https://cloud.mill.example:7448"}
    assert applies(tests, {})
    assert not applies(release, main)
    assert not applies(release, {**main, **fleet, "CI_COMMIT_BRANCH": "try"})
    assert applies(release, {**main, **fleet})


def test_a_push_that_breaks_a_test_fails_at_that_step_and_builds_nothing(pumps: Path) -> None:
    forge = Forge.make(pumps.parent / "forge", pumps)
    pushed = forge.push({"tests/test_pump.py": "def test_a_pump_that_never_wears_out():\n    assert False\n"})
    assert "test_a_pump_that_never_wears_out" in pushed.output
    assert pushed.failed.startswith("job project: step 4 of 5, exit status 1: reuna test")
    assert lines_of(pushed)[-1] == f"== pipeline of {pushed.commit[:12]} FAILED: {pushed.failed}"
    assert "$ reuna build" not in lines_of(pushed)
    assert not (pushed.kept / "dist").exists()
    assert (pushed.kept / "reports" / "reuna.xml").is_file(), "what a test wrote is kept however it ended"


def test_a_push_goes_all_the_way_to_a_signed_release_on_every_edge(pumps: Path, tmp_path: Path) -> None:
    edges = {name: pumps / "data" / name for name in ("pump-1", "pump-2")}
    fleet = make_fleet(tmp_path / "line", "line", {"fog-1": edges})
    given = {"FLEET": "line/fleet.toml", "RELEASES": "releases", "TRUST": "line/trust"}
    variables = {f"REUNA_{name}": str(tmp_path / path) for name, path in given.items()}
    forge = Forge.make(tmp_path / "forge", pumps, variables)
    settings = (pumps / "reuna.toml").read_text() + "\n[run]\nlocal = false\ncentralised = false\n"
    pushed = asyncio.run(pushed_to(fleet, forge, {"reuna.toml": settings}))
    assert pushed.failed == "", pushed.output
    assert [job["name"] for job in pushed.jobs] == ["project", "release"]
    assert "passed    pytest        16 passed" in lines_of(pushed)
    (built,) = pushed.kept.glob("dist/*.build.tar")
    assert read_build(built).manifest.project == "pumps"
    catalogue = Catalogue.of(tmp_path / "releases", "pumps")
    assert catalogue.versions() == [1]
    kept = catalogue.file(1).read_bytes()
    assert all(drill.holds(fleet.folder / edge / "state", kept) for edge in edges)
    assert not drill.holds(fleet.folder / "pump-1" / "state", kept + b"more")


async def pushed_to(fleet: Fleet, forge: Forge, changes: dict[str, str]) -> Pushed:
    """A push while the fleet is up."""
    supervisor = Supervisor(fleet)
    await supervisor.start()
    try:
        await ready(fleet, Operator.of(fleet), supervisor)
        return await asyncio.to_thread(forge.push, changes)
    finally:
        await supervisor.stop()


def test_each_job_begins_with_a_fresh_checkout_and_what_jobs_before_it_kept(tmp_path: Path) -> None:
    text = (
        "stages: [first, second]\nvariables: {WHERE: '$CI_PROJECT_DIR/made'}\n"
        "later: {stage: second, script: ['cat made/kept', 'test ! -e left', 'test \"$TOKEN\" = deep']}\n"
        "early: {stage: first, script: ['mkdir $WHERE', 'git rev-parse HEAD > made/kept', 'touch left'],"
        " artifacts: {paths: [made/]}}\n"
    )
    pushed = forge_of(tmp_path, {".gitlab-ci.yml": text}, {"TOKEN": "deep"}).push({"a.txt": "b"})
    assert pushed.failed == ""
    assert [job["name"] for job in pushed.jobs] == ["early", "later"]
    assert pushed.commit in lines_of(pushed)


def test_a_job_whose_rules_do_not_hold_is_left_out_and_said(tmp_path: Path) -> None:
    text = "a: {script: [echo a]}\nb: {script: [echo b], rules: [{if: $TOKEN}]}\n"
    pushed = forge_of(tmp_path, {".gitlab-ci.yml": text}).push({})
    assert [job["name"] for job in pushed.jobs] == ["a"]
    assert "== job b: left out, its rules do not hold" in lines_of(pushed)
    assert lines_of(pushed)[-1] == f"== pipeline of {pushed.commit[:12]} passed"


def test_a_line_that_fails_inside_a_pipe_or_takes_too_long_ends_its_job(tmp_path: Path) -> None:
    forge = forge_of(tmp_path, {".gitlab-ci.yml": ONE + "echo first\n    - false | true\n    - echo third\n"})
    assert forge.push({}).failed == "job work: step 2 of 3, exit status 1: false | true"
    pushed = forge.push({".gitlab-ci.yml": "work: {timeout: 1 second, script: [tail -f /dev/null]}\n"})
    assert pushed.failed == "job work: step 1 of 1, not done after 1 s: tail -f /dev/null"


def test_a_job_knows_its_commit_and_nothing_of_who_pushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_SECRET", "told")
    forge = forge_of(tmp_path, {".gitlab-ci.yml": ONE + "env\n"})
    pushed = forge.push({"a.txt": "b"})
    assert f"CI_COMMIT_SHA={pushed.commit}" in lines_of(pushed)
    assert "CI_COMMIT_BRANCH=main" in lines_of(pushed)
    assert "MY_SECRET" not in pushed.output
    assert "GIT_" not in pushed.output


def test_every_branch_has_its_pipeline_and_a_branch_that_is_removed_has_none(tmp_path: Path) -> None:
    forge = forge_of(tmp_path, {".gitlab-ci.yml": ONE + "echo on $CI_COMMIT_BRANCH\n"})
    first, second = forge.commit({"a": "1"}, "one"), forge.commit({"a": "2"}, "two")
    git(forge.clone, "push", "--quiet", "origin", f"{first}:refs/heads/try", f"{second}:main")
    assert all(record_of(forge.bare, each).is_file() for each in (first, second))
    git(forge.clone, "push", "--quiet", "origin", ":try")
    assert len(list(record_of(forge.bare, first).parent.glob("*.json"))) == 2


def test_a_file_that_the_runner_does_not_understand_fails_the_push(tmp_path: Path) -> None:
    forge = forge_of(tmp_path, {".gitlab-ci.yml": "work: {script: [true], retry: 2}\n"})
    assert forge.push({}).failed == ".gitlab-ci.yml: work: 'retry' is not understood"
    assert record_of(forge.bare, forge.commit({}, "not pushed")).is_file() is False


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[", "no YAML"),
        ("work: {stage: nowhere, script: [a]}", "there is no stage 'nowhere'"),
        ("work: {stage: test}", "has no script"),
        ("work: {script: [{a: b}]}", "a script is a list of lines"),
        ("work: {script: [a], timeout: soon}", "timeout 'soon' is not understood"),
        ("work: {script: [a], rules: [{if: $A, when: manual}]}", "only `- if: …` is understood"),
        ("work: {script: [a], artifacts: {exclude: [b]}}", "'exclude' is not understood"),
        ("default: {retry: 1}\nwork: {script: [a]}", "default: 'retry' is not understood"),
    ],
)
def test_what_the_reader_does_not_understand_is_refused_by_name(text: str, said: str) -> None:
    with pytest.raises(Refused, match=said):
        read(text)


def test_a_condition_holds_as_the_forge_would_say() -> None:
    given = {"A": "main", "B": "main", "C": "other"}
    assert holds("$A", given)
    assert not holds("$NOWHERE", given)
    assert holds("$A == $B && $C != $A", given)
    assert not holds("$A == $C && $A", given)
    assert holds('$A == "other" || $C == "other"', given)
    with pytest.raises(Refused, match="not understood"):
        holds("$A =~ /main/", given)
    (job,) = read('work: {script: [a], rules: [{if: $X}, {if: $A == "main"}]}').jobs
    assert applies(job, given)
    assert not applies(job, {})
    assert expanded("$A/${B}-$NOWHERE", given) == "main/main-"


HELD: dict[str, Any] = {
    "push_to_release_s": 40.0, "push_to_edges_s": 41.0, "edges": 6, "edges_verified": 6, "worst_site": "plant-3",
    "gates": {"decision": "pass", "held": 24, "of": 24}, "approval_wait_s": 9.0, "waited_at": 6,
    "rounds_before_approval": 0, "code_edges_verified": 6, "stopped_site": "plant-6", "bad_sites": ["plant-6"],
    "still_verified": 6,
}  # fmt: skip


@pytest.mark.parametrize(
    "broken",
    [
        {"push_to_edges_s": 90.1},
        {"edges_verified": 5},
        {"gates": {"decision": "open", "held": 23, "of": 24}},
        {"waited_at": 5},
        {"rounds_before_approval": 1},
        {"code_edges_verified": 0},
        {"stopped_site": ""},
        {"stopped_site": "plant-3"},
        {"bad_sites": ["plant-3", "plant-6"]},
        {"still_verified": 5},
        {"edges": 0},
    ],
    ids=str,
)
def test_the_drill_fails_for_each_promise_that_is_broken(broken: dict[str, Any]) -> None:
    assert drill.held(HELD)
    assert not drill.held({**HELD, **broken})
    for missing in ("edges", "waited_at", "code_edges_verified"):
        assert not drill.held({name: value for name, value in HELD.items() if name != missing})
