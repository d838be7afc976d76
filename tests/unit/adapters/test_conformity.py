"""A node's folder held against the contract: counts over all tables, and where what is wrong begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from reuna.adapters.conformity import Judged, judge_folder
from reuna.core.contract import Contract, Line, Signal
from reuna.core.errors import ContractBroken, DataError


def csv(folder: Path, text: str, name: str = "t.csv") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def refusal(folder: Path, *signals: Signal, **more: str) -> list[str]:
    agreed = Contract(signals=signals, **more)  # type: ignore[arg-type]
    with pytest.raises(ContractBroken) as caught:
        judge_folder(folder, agreed).refuse(agreed)
    return caught.value.message.splitlines()


def test_the_tables_of_all_splits_are_counted_together(tmp_path: Path) -> None:
    csv(tmp_path / "train", "t [degC]\n20\n21\n400\n")
    csv(tmp_path / "test", "t\n21\n22\n")
    agreed = Contract(signals=(Signal("t", "degC", min=-20, max=150, max_bad=0.25),))
    found = judge_folder(tmp_path, agreed)
    assert Line("range", "t", 4, 1) in found.lines
    found.refuse(agreed)


def test_reference_bins_are_of_what_is_learnt_from(tmp_path: Path) -> None:
    agreed = Contract(signals=(Signal("t", "degC", min=0, max=32, max_bad=0.5),))
    csv(tmp_path / "a" / "train", "t [degC]\n0.5\n1.5\n")
    csv(tmp_path / "a" / "train", "t\n1.2\n40\n", "u.csv")
    for split in ("validation", "test"):
        csv(tmp_path / "a" / split, "t\n9\n9\n")
    (found,) = judge_folder(tmp_path / "a", agreed).bins
    assert (found.counts[:2], sum(found.counts), found.outside) == ((1, 2), 3, 1)
    csv(tmp_path / "b", "t\n9\n9\n")
    (loose,) = judge_folder(tmp_path / "b", agreed).bins
    assert loose.counts[9] == 2, "a folder without splits is for training"


def test_a_wild_reading_is_no_wrong_unit_and_an_empty_column_has_none(tmp_path: Path) -> None:
    csv(tmp_path, "t,e\n" + "20,\n" * 40 + "1e6,\n")
    agreed = Contract(signals=(Signal("t", "degC", min=-20, max=150), Signal("e", "degC", min=-20, max=150)))
    judge_folder(tmp_path, agreed).refuse(agreed)


def test_every_rule_that_is_broken_is_named_with_the_place_where_it_begins(tmp_path: Path) -> None:
    path = csv(tmp_path, "p [Pa],t,n,y\n100000,300,x,0\n100000,20,2,\n")
    signals = (Signal("p", "bar"), Signal("t", "degC", min=-20, max=150), Signal("n"))
    assert refusal(tmp_path, *signals, label="y") == [
        f"missing of 'y': 1 of 2 fail, none may; {path}, line 3, column 'y': an empty cell",
        f"unit of 'p': 2 of 2 fail, none may; {path}, column 'p [Pa]': its unit is 'Pa', the contract says 'bar' "
        "(1 Pa is 1e-05 bar)",
        f"unit of 't': 2 of 2 fail, none may; {path}, column 't': its median is 160, the contract says "
        "-20 to 150 degC",
        f"range of 't': 1 of 2 fail, 5 % may; {path}, column 't': 1 outside of -20 to 150 degC",
        f"type of 'n': 1 of 2 fail, none may; {path}, column 'n': 1",
    ]


def test_a_signal_that_is_missing_is_named_with_the_one_that_may_be_meant(tmp_path: Path) -> None:
    csv(tmp_path, "temp\n1\n")
    (line,) = refusal(tmp_path, Signal("tmp"))
    assert line.startswith("present of 'tmp': 1 of 1 fail, none may; ")
    assert line.endswith("has no column 'tmp' (did you mean 'temp'?); it has temp")


def test_the_first_dozen_of_many_broken_rules_is_said(tmp_path: Path) -> None:
    csv(tmp_path, "x\n1\n")
    lines = refusal(tmp_path, *(Signal(f"s{number:02}") for number in range(15)))
    assert len(lines) == 13
    assert lines[-1] == "and 3 more"


def test_a_column_is_found_by_its_name_with_or_without_the_unit_in_brackets(tmp_path: Path) -> None:
    csv(tmp_path, "Torque [Nm]\n40\n")
    for name in ("Torque [Nm]", "Torque", "Torque [N*m]"):
        agreed = Contract(signals=(Signal(name, "Nm"),))
        judge_folder(tmp_path, agreed).refuse(agreed)


def test_without_a_contract_no_table_is_read(tmp_path: Path) -> None:
    assert judge_folder(tmp_path / "nowhere", Contract()) == Judged()


def test_a_table_that_cannot_be_read_breaks_no_contract_but_is_named(tmp_path: Path) -> None:
    csv(tmp_path, "t,t\n1,2\n")
    with pytest.raises(DataError, match="stands twice") as caught:
        judge_folder(tmp_path, Contract(signals=(Signal("t"),)))
    assert not isinstance(caught.value, ContractBroken)
