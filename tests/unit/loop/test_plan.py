"""What the plans of one round have in common, and how those of a run hang together."""

from __future__ import annotations

import msgspec
import pytest

from reuna.cloud.train import Ask
from reuna.core.errors import PlanError, RunProblem
from reuna.core.records import Asking, Grid, Plan, RunSpec
from reuna.loop.plan import check_retry, check_spec, plans, retry, round_plan, shared
from reuna.sim.faults import Walker, fleet_of
from reuna.sim.fleet import make_spec
from reuna.wire import decode

SPEC, MODEL, _ = make_spec(fleet_of(2, 2), Walker(), 3)


def test_every_fog_and_every_attempt_shares_a_rounds_digest() -> None:
    found = {
        shared(decode(Plan, data))
        for attempt in (1, 2)
        for inline in (None, b"the model")
        for data in plans(SPEC, 1, attempt, "train", "a" * 64, inline, "b" * 64).values()
    }
    assert found == {Ask(1, "train", "a" * 64, "b" * 64).shared(SPEC)}


def test_a_node_one_protocol_behind_finds_the_same_digest_in_what_it_knows_of_a_plan() -> None:
    """Else it takes no second round of a run. The digest is what the code of protocol 2 says of this plan."""
    spec, _, _ = make_spec(fleet_of(1, 3), Walker(), 2, asking=Asking(15.0))
    for attempt in (1, 2):
        (data,) = plans(spec, 1, attempt, "train", spec.model, None).values()
        told = "1151a453e14c10eb17724c31d80e0b99f1ae8e46bd5e63db706dbf243685bcb4"
        assert shared(decode(Plan, data)) == told


@pytest.mark.parametrize(
    "changed", [{"model": "c" * 64}, {"seed": 9}, {"settings": {}}, {"before": "c" * 64}]
)
def test_other_work_or_another_past_gives_another_digest(changed: dict[str, object]) -> None:
    plan = round_plan(SPEC, next(iter(SPEC.fogs)), 2, 1, "train", "a" * 64, before="b" * 64)
    assert shared(msgspec.structs.replace(plan, **changed)) != shared(plan)


def test_a_retry_is_the_same_but_for_its_name_and_says_whose_it_is() -> None:
    again = retry(SPEC, "r-again")
    check_retry(again, SPEC)
    assert (again.run, again.retries) == ("r-again", SPEC.run)
    assert (
        plans(again, 1, 1, "train", "a" * 64, None).keys()
        == plans(SPEC, 1, 1, "train", "a" * 64, None).keys()
    )
    assert retry(again, "r-third").retries == "r-again"


def another(value: object) -> object:
    """Of the same type, and not the same."""
    if isinstance(value, bool | int | float):
        return not value if isinstance(value, bool) else value + 1
    if isinstance(value, dict):
        return {**value, "x": ("y",)}
    return Grid(8, 0) if isinstance(value, Grid) else f"{value}x"


@pytest.mark.parametrize("field", sorted({*RunSpec.__struct_fields__} - {"run", "retries"}))
def test_what_has_another_input_is_no_retry(field: str) -> None:
    wrong = {field: another(getattr(SPEC, field))}
    with pytest.raises(RunProblem, match=field):
        check_retry(msgspec.structs.replace(retry(SPEC, "r-again"), **wrong), SPEC)


@pytest.mark.parametrize("name", ["", "r~2", "../r-1", "r 1", "r-\n", "r" * 81])
def test_a_name_that_no_file_and_no_journal_can_have_is_refused(name: str) -> None:
    check_spec(SPEC)
    with pytest.raises(PlanError, match="is no name for a run"):
        check_spec(msgspec.structs.replace(SPEC, run=name))
