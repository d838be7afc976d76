"""An earlier run answers for the same inputs, all of them known, and for nothing else."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.adapters.installed import find_installed
from reuna.core.environment import Environment
from reuna.core.errors import ProjectError
from reuna.fleet import unchanged
from reuna.fleet.data import find_nodes, spread
from reuna.fleet.open_project import open_settings
from reuna.fleet.result import Inputs
from reuna.fleet.unchanged import SALT, Taken, answers, earlier, same_but_data, take
from reuna.template import make_project
from reuna.wire import digest_bytes
from tests.finished import finished

INPUTS = Inputs(
    code="c" * 64,
    settings="5" * 64,
    fleet="",
    fogs={"fog-1": ("pump-1", "pump-2")},
    sites={"pump-1": ("pump-1",), "pump-2": ("pump-2",)},
    packages="e" * 64,
    rules={"pump-1": "3" * 64},
    data={"pump-1": "1" * 64, "pump-2": "2" * 64},
)
MODEL = b"a model"


def closed(number: int, absent: str = "") -> dict[str, Any]:
    fields = {"round": number, "took_part": 2, "absent": absent, "loss": 0.1}
    return {"what": "round", "round": number, "at": 1.0, "fields": fields}


def result(inputs: Inputs | None = INPUTS, **more: Any) -> dict[str, Any]:
    """Of a run of two rounds in which nobody was absent."""
    had = {} if inputs is None else {"inputs": msgspec.to_builtins(inputs)}
    plain = {"timeline": [closed(1), closed(2)], "model_digest": digest_bytes(MODEL)}
    return finished(**{**plain, **had, **more})


def test_a_run_whose_steps_depend_on_what_came_first_answers_for_nothing() -> None:
    assert answers(result(), INPUTS)
    assert not answers({**result(), "asked": {"strategy": "fedbuff"}}, INPUTS)


words = st.text("0123456789abcdef", min_size=1, max_size=3)
nodes = st.lists(words, min_size=1, max_size=3, unique=True)


@st.composite
def inputs_of_some_run(draw: st.DrawFn) -> Inputs:
    """All of them known."""
    names = draw(nodes)
    sites: dict[str, tuple[str, ...]] = {f"site-{name}": (name,) for name in names}
    told = st.fixed_dictionaries(dict.fromkeys(names, words))
    fogs: dict[str, tuple[str, ...]] = {draw(words): tuple(sorted(names))}
    return Inputs(draw(words), draw(words), draw(words), fogs, sites, draw(words), draw(told), draw(told))


@given(inputs_of_some_run(), st.sampled_from(Inputs.__struct_fields__), inputs_of_some_run())
def test_whatever_input_is_another_the_run_trains(had: Inputs, field: str, other: Inputs) -> None:
    asked = msgspec.structs.replace(had, **{field: getattr(other, field)})
    assert answers(result(had), had)
    assert answers(result(had), asked) == (asked == had)


@pytest.mark.parametrize("field", Inputs.__struct_fields__)
def test_the_same_inputs_are_answered_and_each_counts(field: str) -> None:
    assert answers(result(), INPUTS)
    value = getattr(INPUTS, field)
    key = "" if isinstance(value, str) else next(iter(value))
    changed = f"{value}x" if isinstance(value, str) else {**value, key: value[key][:0]}
    assert not answers(result(), msgspec.structs.replace(INPUTS, **{field: changed}))


@pytest.mark.parametrize("data", [{}, {"pump-1": "1" * 64}])
def test_data_that_are_not_known_are_never_the_same(data: dict[str, str]) -> None:
    unknown = msgspec.structs.replace(INPUTS, data=data)
    assert not answers(result(unknown), unknown)
    assert same_but_data(result(), unknown)


def test_packages_that_are_not_known_are_never_the_same() -> None:
    unknown = msgspec.structs.replace(INPUTS, packages="")
    assert not answers(result(unknown), unknown)


@pytest.mark.parametrize(
    "more",
    [
        {"timeline": [closed(1), closed(2, "pump-2: its disk is full")]},
        {"timeline": [closed(1)]},
        {"sites": [{"site": "pump-1", "nodes": ["pump-1"], "absent": {"pump-1": "R103"}}]},
        {"inputs": None},
    ],
    ids=["a node was absent", "a round is not told", "a site was not evaluated", "older version"],
)
def test_a_run_that_another_might_not_repeat_answers_nothing(more: dict[str, Any]) -> None:
    told = result(None) if "inputs" in more else result(**more)
    assert not answers(told, INPUTS)


def test_only_a_result_whose_model_is_whole_answers(tmp_path: Path) -> None:
    for name, model in (("r-3", None), ("r-2", b"another"), ("r-1", MODEL)):
        (tmp_path / name).mkdir()
        if model is not None:
            (tmp_path / name / "model.safetensors").write_bytes(model)
    found = earlier([(tmp_path / name, result(run=name)) for name in ("r-3", "r-2", "r-1")], INPUTS)
    assert found is not None
    assert found[0].name == "r-1"
    assert earlier([], INPUTS) is None


@cache
def installed() -> Environment:
    return find_installed({})


# --- what is taken of a project and its data ---------------------------------------------------------


@pytest.fixture
def pumps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project; which packages are installed is found in a quarter of a second, and each time the same."""
    monkeypatch.setattr(unchanged, "find_installed", lambda _code: installed())
    make_project(tmp_path / "pumps", sample=True)
    return tmp_path / "pumps"


def asked(pumps: Path, *flags: str, fogs: int | None = None, policy: Path | None = None) -> Taken:
    nodes, settings = find_nodes(pumps / "data"), open_settings(pumps, list(flags))
    rules = {} if policy is None else {nodes[0].name: policy}
    return take(pumps, settings, nodes, spread(nodes, fogs), pumps.parent / "runs", rules)


def first_file(pumps: Path) -> Path:
    return min(path for path in (pumps / "data").rglob("*.csv"))


CHANGES = {
    "code": lambda pumps: (pumps / "detector" / "more.py").write_text("x = 1\n"),
    "a setting": lambda pumps: (pumps / "reuna.toml").write_text(
        (pumps / "reuna.toml").read_text().replace("rounds = 20", "rounds = 21")
    ),
    "a byte of the data": lambda pumps: first_file(pumps).write_bytes(first_file(pumps).read_bytes() + b"\n"),
    "a file more": lambda pumps: (first_file(pumps).parent / "notes").write_text(""),
    "a file called otherwise": lambda pumps: first_file(pumps).rename(first_file(pumps).with_name("z.csv")),
    "a node less": lambda pumps: first_file(pumps).parent.rename(pumps / "gone"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_of_anything_makes_other_inputs(pumps: Path, what: str) -> None:
    (pumps.parent / "runs").mkdir()
    asked(pumps).note(pumps.parent / "runs")
    before = asked(pumps).inputs
    assert before == asked(pumps).inputs, "nothing was changed"
    CHANGES[what](pumps)
    assert asked(pumps).inputs != before


def test_a_comment_in_the_settings_or_where_it_is_shown_changes_nothing(pumps: Path) -> None:
    (pumps.parent / "runs").mkdir()
    asked(pumps).note(pumps.parent / "runs")
    before = asked(pumps).inputs
    (pumps / "reuna.toml").write_text("# a comment\n" + (pumps / "reuna.toml").read_text())
    assert asked(pumps, "tracking.mlflow=never").inputs == before
    assert asked(pumps, "run.seed=2").inputs != before
    assert asked(pumps, fogs=1).inputs != before


def test_another_key_gives_other_digests_of_the_same_data(pumps: Path) -> None:
    one, other = asked(pumps).inputs.data, asked(pumps).inputs.data
    assert set(one) == set(other)
    assert not set(one.values()) & set(other.values()), "nothing was kept: each has a key of its own"


def test_the_key_is_kept_with_the_first_result_and_nobody_elses_to_read(pumps: Path) -> None:
    runs = pumps.parent / "runs"
    taken = asked(pumps)
    assert not runs.exists(), "what only asks writes nothing"
    runs.mkdir()
    taken.note(runs)
    assert (runs / SALT).read_bytes() == taken.salt
    assert (runs / SALT).stat().st_mode & 0o777 == 0o600


def test_data_that_change_while_it_trains_are_not_known_afterwards(pumps: Path) -> None:
    (pumps.parent / "runs").mkdir()
    taken = asked(pumps)
    assert taken.note(pumps.parent / "runs")["inputs"]["data"]
    with first_file(pumps).open("ab") as file:
        file.write(b"\n")
    assert taken.note(pumps.parent / "runs")["inputs"]["data"] == {}


def test_the_rules_of_a_nodes_site_are_part_of_what_it_trains_on(pumps: Path) -> None:
    policy = pumps.parent / "policy.toml"
    (pumps.parent / "runs").mkdir()
    asked(pumps).note(pumps.parent / "runs")
    policy.write_text("one")
    before = asked(pumps, policy=policy).inputs
    assert before != asked(pumps).inputs
    policy.write_text("two")
    taken = asked(pumps, policy=policy)
    assert taken.inputs != before
    policy.write_text("one")
    assert taken.retaken().inputs == before, "as it is when the nodes begin"
    assert taken.note(pumps.parent / "runs")["inputs"]["data"] == {}, "it was another meanwhile"


def test_data_that_lie_elsewhere_or_cannot_be_read_as_files_are_not_known(pumps: Path) -> None:
    nodes, settings = find_nodes(pumps / "data"), open_settings(pumps, [])
    far = [replace(nodes[0], folder=Path()), *nodes[1:]]
    assert take(pumps, settings, far, spread(nodes), pumps / "runs", {}).inputs.data == {}
    (first_file(pumps).parent / "more").symlink_to(pumps / "detector")
    assert asked(pumps).inputs.data == {}
    (first_file(pumps).parent / "more").unlink()
    os.mkfifo(first_file(pumps).parent / "pipe")
    assert asked(pumps).inputs.data == {}


def test_a_package_that_is_not_installed_here_leaves_them_unknown(
    pumps: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(_code: object) -> Environment:
        raise ProjectError("detector/model.py imports torch, which is not installed here")

    monkeypatch.setattr(unchanged, "find_installed", missing)
    assert asked(pumps).inputs.packages == ""


def test_a_file_whose_name_is_no_text_is_data_as_any_other(pumps: Path) -> None:
    strange = Path(os.fsdecode(os.fsencode(first_file(pumps).parent) + b"/\xff.csv"))
    strange.write_bytes(first_file(pumps).read_bytes())
    one = asked(pumps).inputs
    assert one.data["pump-1"]
    strange.write_bytes(b"")
    assert asked(pumps).inputs.data["pump-1"] != one.data["pump-1"]
