"""The plant as a process: presses that run, and a historian that keeps and labels what they did.

    python -m drills.drifting.plant FOLDER SEED NAME…

    FOLDER/condition.json        what the presses are like now, read before each stroke (`write`)
    FOLDER/live/NAME/live.csv    what a press says, as it says it: its edge reads this
    FOLDER/data/NAME/train/…     labelled tables, also validation/ and test/: the newest take the place of the
                                 oldest, so they are of the last minute

``late``: presses whose training tables do not come any more; ``careless``: share of the strokes in training
tables that are given a label by chance.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray

from drills.drifting.press import NORMAL, SIGNALS, STROKE, STROKE_S, Condition, strokes

TABLE = 25  #: strokes of a table
TURN = ("train", "train", "validation", "train", "train", "test")  #: which split the next table is of
RINGS = {"train": 8, "validation": 2, "test": 2}  #: tables that there are of each
COLUMNS = ",".join(("second", *SIGNALS))
FRESH_S = TABLE * STROKE_S * sum(RINGS.values())  #: after so long every table is of now


class World(msgspec.Struct, frozen=True):
    """What `condition.json` holds."""

    condition: Condition = Condition()
    late: tuple[str, ...] = ()
    careless: float = 0.0


def write(folder: Path, world: World) -> None:
    """From the next stroke on the plant is so."""
    part = folder / "condition.part"
    part.write_bytes(msgspec.json.encode(world))
    part.replace(folder / "condition.json")


def read(folder: Path) -> World:
    return msgspec.json.decode((folder / "condition.json").read_bytes(), type=World)


class Press:
    """One press, with its historian."""

    def __init__(self, folder: Path, number: int, name: str, seed: int) -> None:
        self.name, self._number = name, number
        self._data = folder / "data" / name
        self._rng = default_rng([seed, number])
        self._kept: list[NDArray[np.float64]] = []
        self._tables = dict.fromkeys(RINGS, 0)
        self._turns = 0
        live = folder / "live" / name
        live.mkdir(parents=True, exist_ok=True)
        self._live = live / "live.csv"

    def begin(self, now: float) -> None:
        """The header, and a full historian."""
        self._say(f"{COLUMNS}\n")
        count = sum(RINGS.values())
        for table in range(count):
            for stroke in range(TABLE):
                self._stroke(now - (count - table) * 10.0 + stroke * STROKE_S, World(), said=False)

    def _say(self, text: str) -> None:
        with self._live.open("a", encoding="utf-8") as file:
            file.write(text)

    def stroke(self, at: float, world: World) -> None:
        self._stroke(at, world, said=True)

    def _stroke(self, at: float, world: World, *, said: bool) -> None:
        rows, faults = strokes(self._number, world.condition, 1, self._rng, self.name)
        times = at + np.arange(STROKE) * (STROKE_S / STROKE)
        table = np.column_stack([times, rows, faults])
        if said:
            self._say("".join(f"{_line(row[:-1])}\n" for row in table))
        self._kept.append(table)
        if len(self._kept) == TABLE:
            self._keep(np.concatenate(self._kept), world)
            self._kept = []

    def _keep(self, table: NDArray[np.float64], world: World) -> None:
        split = TURN[self._turns % len(TURN)]
        self._turns += 1
        if split == "train":
            if self.name in world.late:
                return
            table = careless(table, world.careless, world.condition.faults, self._rng)
        place = self._tables[split] % RINGS[split]
        self._tables[split] += 1
        folder = self._data / split
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / ".part"
        lines = (f"{_line(row[:-1])},{row[-1]:.0f}" for row in table)
        part.write_text("\n".join((f"{COLUMNS},fault", *lines, "")), encoding="utf-8")
        part.replace(folder / f"{place}.csv")


def careless(
    table: NDArray[np.float64], share: float, faults: Sequence[int], rng: Generator
) -> NDArray[np.float64]:
    """The table with the labels of that share of its strokes drawn by chance."""
    chosen = np.repeat(rng.random(len(table) // STROKE) < share, STROKE)
    drawn = np.repeat(rng.choice((NORMAL, *faults), len(table) // STROKE), STROKE)
    return np.column_stack([table[:, :-1], np.where(chosen, drawn, table[:, -1])])


def _line(row: NDArray[np.float64]) -> str:
    return ",".join((f"{row[0]:.2f}", *(f"{each:.3f}" for each in row[1:])))


def main() -> None:
    folder, seed, names = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    presses = [Press(folder, number, name, seed) for number, name in enumerate(names)]
    begin = float(int(time.time()) + 1)
    for press in presses:
        press.begin(begin)
    print(json.dumps({"begins": begin}), flush=True)
    done = 0
    while True:  # ends with who began it
        time.sleep(max(0.0, begin + (done + 1) * STROKE_S - time.time()))
        world = read(folder)
        for press in presses:
            press.stroke(round(begin + done * STROKE_S, 2), world)
        done += 1


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
