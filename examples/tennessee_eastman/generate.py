"""Makes the demo's data set: six Tennessee Eastman plants, simulated with tep-studio.

    python examples/tennessee_eastman/generate.py --output src/reuna/demo/plants.npz

Needs the extra ``[tep]`` (tep-studio 0.2.0, which needs a C compiler); the demo itself does not,
it reads the file. Each plant is one operating mode. `settle` gives the controller the mode's
set-points and runs 72 h; every run then starts from that state with the controller's memory, so
that no run begins with a start-up bump. Noise seed and onset differ from run to run, and the
test runs' onsets lie in another range than those used for training.

Process: J. J. Downs and E. F. Vogel, A plant-wide industrial process control problem, Computers
& Chemical Engineering 17(3), 1993; revised model: A. Bathelt, N. L. Ricker and M. Jelali,
Revision of the Tennessee Eastman Process Model, IFAC-PapersOnLine 48(8), 2015; control: N. L.
Ricker, Decentralized control of the Tennessee Eastman Challenge Process, J. Process Control 6(4),
1996. The model is for research and education.

What the file holds is told in `reuna.demo.plants`, which reads it.
"""

from __future__ import annotations

import argparse
import copy
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tep_studio.control import RickerMultiLoopController
from tep_studio.simulation.core import TennesseeEastmanProcess
from tep_studio.simulation.modes import mode_setpoints
from tep_studio.simulation.schema import TEP_SCHEMA

PLANTS = 6
LEARNT = (1, 2, 4, 6, 7, 14, 17)
APART = (8, 10, 11, 12, 13, 20)
UNDETECTABLE = (3, 9, 15)
NORMAL = 0

STEP_H = 0.005  # 18 s: one move of the controller
STEPS_PER_SAMPLE = 10  # 3 minutes
STEPS_PER_MIN = 10 / 3
SETTLE_H = 72.0
BURN_IN_H = 1.0  # of every run, not recorded: the runs part from their common state
STEPS_OF_NOISE = 8  # steps of the stored integers per standard deviation of the noise

DEVELOPMENT, TEST, EXTRA = 0, 1, 2


@dataclass(frozen=True)
class Kind:
    """How many runs of a role there are, how long, and in which minutes the fault may begin."""

    runs: int
    length_min: int
    onset_min: tuple[int, int]


NORMAL_RUNS = {DEVELOPMENT: Kind(3, 2400, (0, 0)), TEST: Kind(3, 1800, (0, 0))}
FAULT_RUNS = {
    DEVELOPMENT: Kind(3, 600, (90, 150)),
    TEST: Kind(2, 720, (180, 300)),
    EXTRA: Kind(1, 720, (180, 300)),
}


@dataclass(frozen=True)
class Plan:
    """One run to simulate. ``onset_min`` is -1 for a normal run."""

    plant: int
    role: int
    fault: int
    index: int
    seed: int
    onset_min: int
    length_min: int


@dataclass(frozen=True)
class Settled:
    """A plant in its mode: its 50 states, what it measures, and the controller's memory."""

    state: NDArray[np.float64]
    measured: NDArray[np.float64]
    controller: RickerMultiLoopController


def plans(plant: int, seed: int) -> list[Plan]:
    """Every run of a plant. The same arguments give the same plans."""
    faults = [(role, NORMAL, kind) for role, kind in NORMAL_RUNS.items()]
    for role, wanted in ((DEVELOPMENT, LEARNT), (TEST, LEARNT), (EXTRA, APART + UNDETECTABLE)):
        faults += [(role, fault, FAULT_RUNS[role]) for fault in wanted]
    return [
        _plan(plant, role, fault, index, kind, seed)
        for role, fault, kind in faults
        for index in range(kind.runs)
    ]


def _plan(plant: int, role: int, fault: int, index: int, kind: Kind, seed: int) -> Plan:
    random = np.random.default_rng([seed, plant, role, fault, index])
    # The model's generator is multiplicative modulo 2^32: an even seed shortens its period.
    noise = int(random.integers(2**20, 2**30)) * 2 + 1
    onset = int(random.integers(*kind.onset_min)) if fault else -1
    return Plan(plant, role, fault, index, noise, onset, kind.length_min)


def settle(plant: int, seed: int) -> Settled:
    """Bring a plant to its mode: set-points of the mode, then 72 h of closed loop."""
    mode = f"mode{plant + 1}"
    process = TennesseeEastmanProcess()
    controller = RickerMultiLoopController(setpoints=mode_setpoints(mode))
    measured, _ = process.reset(mode=mode, seed=float(2 * (seed + plant) + 1))
    controller.reset(measured)
    for step in range(round(SETTLE_H / STEP_H)):
        action, _ = controller.compute_action(measured, time=step * STEP_H)
        result = process.advance(action, control_interval=STEP_H)
        measured = result.measurements
        if result.shutdown_status["terminated"]:
            raise RuntimeError(f"plant {plant} tripped while settling: {result.shutdown_status}")
    return Settled(process.state.copy(), measured.copy(), controller)


def simulate(settled: Settled, plan: Plan) -> NDArray[np.float64]:
    """Samples (samples, 53) of one run every 3 minutes; fewer than planned if the plant trips."""
    process = TennesseeEastmanProcess()
    controller = copy.deepcopy(settled.controller)
    measured, _ = process.reset(initial_state=settled.state, seed=float(plan.seed))
    burn_in = round(BURN_IN_H / STEP_H)
    onset = burn_in + round(plan.onset_min * STEPS_PER_MIN) if plan.fault else sys.maxsize
    idle, active = np.zeros(28), np.zeros(28)
    active[plan.fault - 1] = 1.0
    rows = []
    for step in range(burn_in + round(plan.length_min * STEPS_PER_MIN)):
        action, _ = controller.compute_action(measured, time=SETTLE_H + step * STEP_H)
        disturbance = active if step >= onset else idle
        result = process.advance(action, control_interval=STEP_H, disturbances=disturbance)
        measured = result.measurements
        if result.shutdown_status["terminated"]:
            break
        if step >= burn_in and (step + 1 - burn_in) % STEPS_PER_SAMPLE == 0:
            rows.append(np.concatenate([measured, result.implemented_action]))
    return np.array(rows)


def simulate_plant(plant: int, seed: int) -> list[tuple[Plan, NDArray[np.float64]]]:
    """Every run of a plant with its samples."""
    settled = settle(plant, seed)
    return [(plan, simulate(settled, plan)) for plan in plans(plant, seed)]


def quantise(
    runs: list[tuple[Plan, NDArray[np.float64]]],
) -> tuple[NDArray[np.int16], NDArray[np.float64], NDArray[np.float64]]:
    """Integers (53, samples), scale and offset (53,): value = offset + scale * integer.

    The scale is a power of two, at most an eighth of the column's noise (the median of the normal runs),
    unless the column's range then no longer fits into 16 bits.
    """
    values = np.concatenate([rows for _, rows in runs])
    lowest, highest = values.min(axis=0), values.max(axis=0)
    offset = np.round((lowest + highest) / 2, 3)
    fits = (highest - lowest + 0.01) / 65_000
    noise = [_noise(rows) for plan, rows in runs if plan.fault == NORMAL]
    wanted = np.maximum(np.median(noise, axis=0) / STEPS_OF_NOISE, fits)
    scale = 2.0 ** np.floor(np.log2(wanted))
    scale = np.where(scale < fits, scale * 2, scale)
    return np.round((values - offset) / scale).astype(np.int16).T.copy(), scale, offset


def _noise(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard deviation of what changes from sample to sample."""
    deviation: NDArray[np.float64] = np.std(np.diff(rows, axis=0), axis=0) / np.sqrt(2)
    return deviation


def columns() -> dict[str, NDArray[Any]]:
    """Names, units and the literature's tags of the 53 columns."""
    measured, valves = TEP_SCHEMA.measurements, TEP_SCHEMA.manipulated_variables
    tags = [f"XMEAS({i + 1})" for i in range(41)] + [f"XMV({i + 1})" for i in range(12)]
    names = [_name(variable.name) for variable in (*measured, *valves)]
    units = [variable.unit for variable in measured] + ["%"] * len(valves)
    return {"names": np.array(names), "units": np.array(units), "tags": np.array(tags)}


def _name(name: str) -> str:
    return name.removesuffix("_meas").lower()


def table(runs: list[tuple[Plan, NDArray[np.float64]]]) -> dict[str, NDArray[Any]]:
    """One row per run: what was planned, where its samples lie, whether the plant tripped."""
    kept = np.array([len(rows) for _, rows in runs], np.int32)
    planned = np.array([plan.length_min // 3 for plan, _ in runs], np.int32)
    fields = ("plant", "role", "fault", "index", "onset_min", "seed")
    return {
        **{f"run_{field}": _field(runs, field) for field in fields},
        "run_start": np.concatenate([[0], np.cumsum(kept)[:-1]]).astype(np.int32),
        "run_samples": kept,
        "run_tripped": kept < planned,
    }


def _field(runs: list[tuple[Plan, NDArray[np.float64]]], field: str) -> NDArray[np.int32]:
    return np.array([getattr(plan, field) for plan, _ in runs], np.int32)


def write(runs: list[tuple[Plan, NDArray[np.float64]]], file: Path) -> None:
    """Write the container: zipped numpy arrays, nothing pickled.

    Each column is stored as differences from sample to sample (modulo 2^16), high and low bytes
    apart: analysers repeat their value for up to 15 minutes, and the high bytes are mostly zero.
    """
    integers, scale, offset = quantise(runs)
    steps = np.diff(integers, axis=1, prepend=np.int16(0)).view(np.uint16)
    np.savez_compressed(
        file,
        allow_pickle=False,
        high=(steps >> 8).astype(np.uint8),
        low=(steps & 0xFF).astype(np.uint8),
        scale=scale,
        offset=offset,
        **columns(),
        **table(runs),
    )


def main() -> None:
    """Simulate all plants, two at a time by default, and write the file."""
    parser = argparse.ArgumentParser(description="Simulate the demo's six plants.")
    parser.add_argument("--output", type=Path, default=Path("plants.npz"), help="file to write")
    parser.add_argument("--seed", type=int, default=1993, help="seed of the whole data set")
    parser.add_argument("--processes", type=int, default=2, help="plants simulated at a time")
    given = parser.parse_args()
    with ProcessPoolExecutor(given.processes) as pool:
        plants = list(pool.map(partial(simulate_plant, seed=given.seed), range(PLANTS)))
    runs = [run for plant in plants for run in plant]
    write(runs, given.output)
    samples = sum(len(rows) for _, rows in runs)
    print(f"{len(runs)} runs, {samples} samples, {given.output.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
