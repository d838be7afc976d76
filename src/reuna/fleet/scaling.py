"""The plan's first claim, measured: one pooled data set on one device, and split over eight equal ones.

Every device is a process that may use the same share of one core: after each pass over its data
it rests so long that its processor time stays at that share. Devices train side by side and their
updates are summed exactly, as in any round. Only possible where one machine holds all the data.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reuna.adapters.processes import ONE_THREAD, end_with_parent, own_peak_mib
from reuna.adapters.project import load_entry
from reuna.core.data import Dataset, Samples, no_samples, pooled
from reuna.core.errors import WorkerFailed
from reuna.core.ports import Learner
from reuna.core.records import Grid, Setting
from reuna.core.tensors import flatten, layout_of, pack, unflatten, unpack
from reuna.learn.grid import decode, encode

if TYPE_CHECKING:
    from reuna.fleet.session import Job

DEVICES = 8
CPU_SHARE = 0.2  #: of one core; eight devices then fit on two cores
ROUNDS = 3
PASSES = 100  #: over the data in each round
GRID = Grid(bits=32, exponent=-24)


async def measure_scaling(job: Job) -> dict[str, Any]:
    """Wall time, peak memory per device and score, for one device and for eight."""
    entry = load_entry(job.project, job.settings.entry)
    settings = dict(job.settings.settings)
    learner = entry.learner(settings)
    nodes = [await asyncio.to_thread(entry.load, node.folder, settings) for node in job.nodes]
    train = pooled(nodes).train
    cases = {}
    for count in (1, DEVICES):
        with tempfile.TemporaryDirectory(prefix="reuna-scaling-") as folder:
            case, model = await _run(job, learner, train, count, Path(folder))
        scores = [learner.evaluate(model, own, settings).get(job.settings.metric, 0.0) for own in nodes]
        cases[f"{count} device{'s' if count > 1 else ''}"] = {**case, "all": float(np.mean(scores))}
    one, eight = cases["1 device"], cases[f"{DEVICES} devices"]
    speed, memory = one["wall_s"] / eight["wall_s"], one["data_mib"] / eight["data_mib"]
    sentence = (
        f"one data set on {DEVICES} equal devices instead of one (each {100 * CPU_SHARE:.0f} % of a core): "
        f"{one['wall_s']:.1f} s -> {eight['wall_s']:.1f} s ({speed:.1f} x faster), data per device "
        f"{one['data_mib']:.2f} -> {eight['data_mib']:.2f} MiB ({memory:.1f} x less), peak memory per device "
        f"{one['peak_mib']:.0f} -> {eight['peak_mib']:.0f} MiB, score {one['all']:.3f} -> {eight['all']:.3f}"
    )
    return {
        "cpu_share": CPU_SHARE,
        "devices": DEVICES,
        "cases": cases,
        "speed_up": speed,
        "sentence": sentence,
    }


async def _run(
    job: Job, learner: Learner, train: Samples, count: int, folder: Path
) -> tuple[dict[str, float], Mapping[str, Any]]:
    """Train on ``count`` devices; the figures and the model."""
    order = np.random.default_rng(job.settings.seed).permutation(len(train))
    shards = np.array_split(order, count)
    devices = [await _device(job, folder, i, train, shard) for i, shard in enumerate(shards)]
    model = dict(learner.init(job.settings.seed))
    try:
        await asyncio.gather(*(_answer(device) for device in devices))  # each has loaded its shard
        began = time.monotonic()
        for number in range(ROUNDS):
            base = folder / f"model-{number}"
            base.write_bytes(pack(model))
            answers = await asyncio.gather(
                *(_ask(device, base, folder / f"out-{i}", number) for i, device in enumerate(devices))
            )
            weights = [len(shard) for shard in shards]
            trained = [(folder / f"out-{i}").read_bytes() for i in range(count)]
            model = combine(model, [unpack(data) for data in trained], weights)
        wall_s = time.monotonic() - began
    finally:
        await _end(devices)
    peak = max(answer["peak_mib"] for answer in answers)
    data_mib = max(len(shard) for shard in shards) * train.x[0].nbytes / 2**20
    return {"wall_s": wall_s, "peak_mib": peak, "data_mib": data_mib}, model


def combine(model: Mapping[str, Any], trained: list[dict[str, Any]], weights: list[int]) -> dict[str, Any]:
    """The weighted mean of the trained models, summed as integers on the grid."""
    layout = layout_of(model)
    base = flatten(model, layout)
    total = np.zeros(base.size, np.int64)
    for tensors, weight in zip(trained, weights, strict=True):
        integers, _ = encode(flatten(tensors, layout) - base, GRID)
        total += integers.astype(np.int64) * weight
    mean = decode(total, GRID, sum(weights))
    return unflatten((base + mean).astype(np.float32), layout)


async def _device(
    job: Job, folder: Path, index: int, train: Samples, shard: np.ndarray
) -> asyncio.subprocess.Process:
    file = folder / f"shard-{index}.npz"
    np.savez(file, x=train.x[shard], y=train.y[shard])
    request = {
        "project": str(job.project.absolute()),
        "entry": job.settings.entry,
        "settings": dict(job.settings.settings),
        "data": str(file),
    }
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "reuna.fleet.scaling",
        json.dumps(request),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **ONE_THREAD},
        preexec_fn=end_with_parent,
    )


async def _ask(device: asyncio.subprocess.Process, base: Path, out: Path, seed: int) -> dict[str, float]:
    assert device.stdin is not None
    device.stdin.write(json.dumps({"model": str(base), "out": str(out), "seed": seed}).encode() + b"\n")
    return await _answer(device)


async def _answer(device: asyncio.subprocess.Process) -> dict[str, float]:
    assert device.stdout is not None
    line = await device.stdout.readline()
    if not line:
        raise WorkerFailed("a device of the scaling study ended")
    answer: dict[str, float] = json.loads(line)
    return answer


async def _end(devices: list[asyncio.subprocess.Process]) -> None:
    for device in devices:
        if device.returncode is None:
            device.kill()
    await asyncio.gather(*(device.wait() for device in devices))


# --- in a device -----------------------------------------------------------------------------


def throttled_fit(
    learner: Learner, model: Any, data: Dataset, settings: Mapping[str, Setting], seed: int
) -> Any:
    """`PASSES` passes over the data at no more than `CPU_SHARE` of a core."""
    for turn in range(PASSES):
        began = time.process_time()
        model, _, _ = learner.fit(model, data, {**settings, "epochs": 1}, 1000 * seed + turn)
        time.sleep((time.process_time() - began) * (1 / CPU_SHARE - 1))
    return model


def main() -> int:
    """One device: load its shard, then train whenever a line asks for it."""
    request = json.loads(sys.argv[1])
    learner = load_entry(Path(request["project"]), request["entry"]).learner(request["settings"])
    with np.load(request["data"]) as shard:
        samples = Samples(shard["x"], shard["y"])
    nothing = no_samples(samples.x.shape[1])
    data = Dataset(samples, nothing, nothing)
    print(json.dumps({"peak_mib": own_peak_mib()}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        model = unpack(Path(asked["model"]).read_bytes())
        trained = throttled_fit(learner, model, data, request["settings"], asked["seed"])
        Path(asked["out"]).write_bytes(pack(trained))
        print(json.dumps({"peak_mib": own_peak_mib()}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
