"""Encoded updates through a whole fleet: the same bits whatever the tree, the faults, or who was late."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from reuna.adapters.linear import SoftmaxClassifier
from reuna.api import Result, play, rounds_of, with_members
from reuna.core.data import Dataset, Samples
from reuna.core.errors import RunFailed
from reuna.core.records import Encoding, Grid, Hello
from reuna.exchange.presence import Presence
from reuna.loop import train
from reuna.sim.clock import SimClock, run_virtual
from reuna.sim.faults import Walker, rehearse, undisturbed
from reuna.sim.fleet import FairWeather, SimEdge, SimFleet, make_spec
from reuna.sim.journal import JournalStore, SimJournal
from reuna.wire import VERSION

FOLLOWED = {"grid": Grid(16, -16), "encoding": Encoding(feedback=True, follow=True)}
CHANCE = {"grid": Grid(8, -4), "encoding": Encoding(stochastic=True, feedback=True)}
LARGEST = {"grid": Grid(4, -2), "encoding": Encoding(feedback=True, keep=0.2)}
PLAIN: dict[str, Any] = {"grid": Grid(16, -10), "encoding": None}
PACKED: dict[str, Any] = {"grid": Grid(16, -10), "encoding": Encoding()}
WAYS: dict[str, dict[str, Any]] = {"followed": FOLLOWED, "by chance": CHANCE, "largest": LARGEST}


def data_of(seed: int) -> Dataset:
    x = np.random.default_rng(seed).normal(size=(60, 40)).astype(np.float32)
    samples = Samples(x, (x @ np.random.default_rng(99).normal(size=(40, 2))).argmax(1))
    return Dataset(samples, samples, samples)


DATA = {f"edge-{number}": data_of(number) for number in range(6)}


def trained(
    fogs: int = 2, took_part: list[tuple[str, ...]] | None = None, rounds: int = 6, **way: Any
) -> Result:
    learner, names = SoftmaxClassifier(40, 2), sorted(DATA)
    spread = {
        f"fog-{fog}": {
            name: SimEdge(learner, DATA[name], rounds_of(name, took_part)) for name in names[fog::fogs]
        }
        for fog in range(fogs)
    }
    settings = {"rate": 0.1, "epochs": 1}
    spec, model, bundle = make_spec(spread, learner, rounds, settings=settings, evaluate=True, **way)
    return play(spread, with_members(spec, took_part) if took_part else spec, model, bundle)


@pytest.mark.parametrize("name", WAYS)
def test_any_tree_of_fogs_gives_the_same_bits(name: str) -> None:
    assert len({trained(fogs, **WAYS[name]).digest for fogs in (1, 2, 3, 6)}) == 1


@pytest.mark.parametrize("name", WAYS)
def test_any_faults_give_the_same_bits(name: str) -> None:
    """Processes are killed anywhere, lines cut, disks full: `reuna.sim.faults`."""
    expected = undisturbed(**WAYS[name])
    for seed in range(1, 9):
        assert rehearse(seed, **WAYS[name]).outcome == expected, f"reproduce with rehearse({seed})"


@pytest.mark.parametrize("name", WAYS)
def test_who_was_missing_and_when_gives_the_same_bits_again(name: str) -> None:
    everybody = tuple(sorted(DATA))
    took_part = [everybody, everybody[:3], everybody[2:], everybody[:1], everybody, everybody[1:]]
    first = trained(2, took_part, **WAYS[name])
    assert first.digest == trained(3, took_part, **WAYS[name]).digest
    assert first.digest != trained(2, **WAYS[name]).digest
    assert first.took_part == took_part


def test_packing_changes_bytes_and_no_bit_of_the_model() -> None:
    plain, packed = trained(**PLAIN), trained(**PACKED)
    assert packed.digest == plain.digest
    assert sum(int(each["bytes"]) for each in packed.rounds) < sum(
        int(each["bytes"]) for each in plain.rounds
    )


def test_a_step_that_follows_is_as_good_for_updates_of_any_size() -> None:
    """A fixed step that suits the larger ones loses the smaller ones altogether."""

    def loss(rate: float, **way: Any) -> float:
        spread = {"fog-0": {name: SimEdge(SoftmaxClassifier(40, 2), data) for name, data in DATA.items()}}
        settings = {"rate": rate, "epochs": 1}
        spec, model, bundle = make_spec(
            spread, SoftmaxClassifier(40, 2), 12, settings=settings, evaluate=True, **way
        )
        return float(np.mean([each["all"] for each in play(spread, spec, model, bundle).scores.values()]))

    for rate in (1e-1, 1e-5):
        exact = loss(rate, grid=Grid(32, -24 if rate > 1e-3 else -40))
        assert loss(rate, **FOLLOWED) == pytest.approx(exact, abs=0.01)
    assert loss(1e-5, grid=Grid(16, -10), encoding=Encoding(feedback=True)) < exact - 0.2


class Behind(SimFleet):
    """Some nodes say that they speak the protocol before."""

    def __init__(self, older: set[str], **way: Any) -> None:
        fogs = {f"fog-{f}": {f"edge-{f}-{e}": SimEdge(Walker(), 1) for e in range(2)} for f in range(2)}
        store = JournalStore()
        super().__init__(fogs, SimClock(), lambda: SimJournal(store), FairWeather())
        self.older = older
        self.asked = make_spec(fogs, Walker(), 2, quorum=0.5, deadline_s=2.0, **way)

    def _presence(self, link: Any, name: str, about: Any) -> Presence:
        if name in self.older:
            link = _Older(link)
        return super()._presence(link, name, about)

    def rounds(self) -> list[dict[str, Any]]:
        run_virtual(self.run(*self.asked))
        return [fields for (what, _), fields in sorted(self.timeline.items()) if what == "round"]


class _Older:
    def __init__(self, link: Any) -> None:
        self._link = link

    async def hello(self, hello: Hello) -> None:
        await self._link.hello(msgspec.structs.replace(hello, protocol=VERSION - 1))


@pytest.mark.parametrize("older", [{"edge-0-1"}, {"fog-1"}])
def test_who_is_a_protocol_behind_sits_out_by_name_and_holds_nobody_up(older: set[str]) -> None:
    rounds = Behind(older, **FOLLOWED).rounds()
    edges = {"edge-1-0", "edge-1-1"} if "fog-1" in older else older
    for number, each in enumerate(rounds):
        if number:  # at the first some have said nothing yet
            assert each["seconds"] < 1.0
            assert dict(part.split(": ", 1) for part in each["absent"].split(", ")) == dict.fromkeys(
                edges, train.OLDER
            )
    assert all(each["took_part"] == 4 for each in Behind(older, **PLAIN).rounds()), "plain integers it knows"


def test_when_every_fog_is_a_protocol_behind_the_run_ends_with_what_to_do() -> None:
    with pytest.raises(RunFailed, match="older") as failure:
        Behind({"fog-0", "fog-1"}, **FOLLOWED).rounds()
    assert "round.packed=never" in failure.value.next_step
