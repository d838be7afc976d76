"""The demo's data set: shapes, units, splits that share nothing, size, and that it is what
examples/tennessee_eastman/generate.py makes."""

from __future__ import annotations

from collections import Counter
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from reuna.demo import plants


@pytest.fixture(scope="module")
def archive() -> plants.Archive:
    return plants.read_archive()


def test_there_are_41_measurements_and_12_valves_with_units(archive: plants.Archive) -> None:
    columns = plants.signals(archive)
    assert [column.tag for column in columns[:2]] == ["XMEAS(1)", "XMEAS(2)"]
    assert Counter(column.tag.split("(")[0] for column in columns) == {"XMEAS": 41, "XMV": 12}
    assert len({column.name for column in columns}) == 53
    units = {column.name: column.unit for column in columns}
    assert all(units.values())
    assert units["reactor_pressure"] == "kPa gauge"
    assert units["reactor_cooling_water_valve"] == "%"


@pytest.mark.parametrize("plant", range(plants.PLANTS))
def test_a_plant_holds_runs_of_53_finite_columns_every_3_minutes(plant: int, archive: plants.Archive) -> None:
    data = plants.load_plant(plant, 0, archive)
    for run in (*data.train, *data.validation, *data.test, *data.extra):
        assert run.values.shape == (len(run.minutes), 53)
        assert run.values.dtype == np.float32
        assert np.isfinite(run.values).all()
        assert run.minutes[0] == 3
        assert (np.diff(run.minutes) == 3).all()


def test_the_plants_run_in_different_modes(archive: plants.Archive) -> None:
    names = [column.name for column in plants.signals(archive)]
    share = names.index("stripper_underflow_g_concentration")
    normal = [plants.load_plant(plant, 0, archive).train[0].values for plant in range(plants.PLANTS)]
    shares = [float(values[:, share].mean()) for values in normal]
    assert shares == pytest.approx([54, 12, 90, 54, 14, 90], abs=1)
    # Plant 4 (mode 5): its E feed valve is fully open, so it makes 14 % G where 12 % is asked for.
    # Modes 3 and 6, 2 and 5, 1 and 4 share a product mix, not an operating point.
    means = np.array([values.mean(axis=0) for values in normal])
    noise = np.array([values.std(axis=0) for values in normal]).max(axis=0) + 1e-6
    for one in range(plants.PLANTS):
        for other in range(one):
            assert np.abs((means[one] - means[other]) / noise).max() > 2, (one, other)


def test_a_label_tells_the_fault_from_the_onset_on(archive: plants.Archive) -> None:
    run = next(run for run in plants.load_plant(0, 0, archive).test if run.fault == 4)
    before = run.minutes <= run.onset_min
    assert 0 < before.sum() < len(run.labels)
    assert (run.labels[before] == 0).all()
    assert (run.labels[~before] == 4).all()
    normal = next(run for run in plants.load_plant(0, 0, archive).test if run.fault == 0)
    assert normal.onset_min == -1
    assert (normal.labels == 0).all()


@pytest.mark.parametrize("split", range(plants.SPLITS))
def test_each_site_trains_on_four_faults_and_each_fault_is_seen_by_three_or_four(
    split: int,
) -> None:
    seen = [plants.seen_faults(plant, split) for plant in range(plants.PLANTS)]
    assert all(len(faults) == 4 for faults in seen)
    assert len(set(seen)) == plants.PLANTS
    counts = Counter(fault for faults in seen for fault in faults)
    assert set(counts) == set(plants.FAULTS)
    assert set(counts.values()) <= {3, 4}


@pytest.mark.parametrize("split", range(plants.SPLITS))
def test_train_validation_and_test_share_no_run_no_seed_and_test_no_onset(
    split: int, archive: plants.Archive
) -> None:
    for plant in range(plants.PLANTS):
        data = plants.load_plant(plant, split, archive)
        parts = {part: getattr(data, part) for part in plants.FOLDERS}
        seeds = [run.seed for runs in parts.values() for run in runs]
        assert len(set(seeds)) == len(seeds)
        learnt = {run.onset_min for run in (*data.train, *data.validation) if run.fault}
        tested = {run.onset_min for run in (*data.test, *data.extra) if run.fault}
        assert not learnt & tested
        assert {run.fault for run in data.train} == {0, *data.faults}
        assert {run.fault for run in data.validation} == {0, *data.faults}
        assert {run.fault for run in data.test} == {0, *plants.FAULTS}
        apart = {*plants.EXTRA_FAULTS, *plants.UNDETECTABLE_FAULTS}
        assert {run.fault for run in data.extra} == apart


def test_only_fault_6_trips_a_plant_and_what_was_recorded_is_kept(archive: plants.Archive) -> None:
    runs = [
        run
        for plant in range(plants.PLANTS)
        for split in range(plants.SPLITS)
        for part in plants.FOLDERS
        for run in getattr(plants.load_plant(plant, split, archive), part)
    ]
    tripped = [run for run in runs if run.tripped]
    assert {run.fault for run in tripped} == {6}
    assert all((run.labels == 6).sum() >= 80 for run in tripped)


def test_an_unknown_plant_is_refused() -> None:
    with pytest.raises(ValueError, match="plants 0-5"):
        plants.load_plant(6, 0)


def test_the_package_data_is_at_most_5_mb() -> None:
    shipped = [file for file in files("reuna.demo").iterdir() if file.name.endswith(".npz")]
    assert 0 < sum(len(file.read_bytes()) for file in shipped) <= 5_000_000


def test_a_node_folder_holds_a_parquet_file_per_run_with_units(
    tmp_path: Path, archive: plants.Archive
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra [parquet] is not installed")
    plants.write_plant_folder(2, 1, tmp_path, archive)
    data = plants.load_plant(2, 1, archive)
    for part in plants.FOLDERS:
        names = sorted(file.stem for file in (tmp_path / part).iterdir())
        assert names == sorted(run.name for run in getattr(data, part))
    run = next(run for run in data.train if run.fault)
    table = parquet.read_table(tmp_path / "train" / f"{run.name}.parquet")
    assert table.column_names[-2:] == ["minute", "fault"]
    assert table.schema.field("reactor_pressure").metadata == {
        b"unit": b"kPa gauge",
        b"tag": b"XMEAS(7)",
    }
    assert table["fault"].to_pylist() == run.labels.tolist()
    assert np.array_equal(table["reactor_pressure"].to_numpy(), run.values[:, 6])


def test_the_generator_makes_the_same_run_again(archive: plants.Archive) -> None:
    pytest.importorskip("tep_studio", reason="the extra [tep] (tep-studio, a C compiler) is not installed")
    from examples.tennessee_eastman import generate

    plant = 4
    wanted = next(run for run in plants.load_plant(plant, 1, archive).train if run.fault)
    plan = next(plan for plan in generate.plans(plant, seed=1993) if plan.seed == wanted.seed)
    assert (plan.fault, plan.onset_min) == (wanted.fault, wanted.onset_min)
    again = generate.simulate(generate.settle(plant, seed=1993), plan)
    assert again.shape == wanted.values.shape
    # Half a step is the rounding to integers; the rest is that of float32.
    allowed = 0.501 * archive.scale + 1e-6 * np.abs(again)
    assert (np.abs(again - wanted.values) <= allowed).all()
