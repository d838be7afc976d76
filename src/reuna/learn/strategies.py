"""Server strategies: an algorithm is a record of two functions over plain vectors.

    init(params)                               -> state: slot name -> (params,) float32 zeros
    apply(state, model, delta, round, settings) -> (state, model)

``model`` is the (params,) float32 vector of the global model, ``delta`` the (params,) float64
weighted mean of the nodes' differences. All of them work element by element, so a block of the
vectors gives the same block of the result: the cloud applies them block by block.

    fedavg    McMahan et al. 2017, Communication-Efficient Learning, algorithm 1 (server rate 1)
    fedprox   Li et al. 2020, Federated Optimization in Heterogeneous Networks, eq. 2: the node
              adds mu/2 * |w - w_global|^2 to its loss; the server's part is fedavg's
    fedavgm   Hsu et al. 2019, Measuring the Effects of Non-Identical Data, section 4.3
    fedadam   Reddi et al. 2021, Adaptive Federated Optimization, algorithm 2 (without bias correction)

    fedbuff   Nguyen et al. 2022, Buffered Asynchronous Aggregation: fedavg's step, whenever ``buffer``
              updates are there; ``delta`` is their mean with the weights of `reuna.learn.staleness`

The robust ones put another step in place of the weighted mean, see `reuna.learn.robust`; the server
adds it, times its rate.

>>> fedavg = STRATEGIES["fedavg"]
>>> state, model = fedavg.apply(fedavg.init(1), np.zeros(1, np.float32), np.ones(1), 1, {})
>>> model.tolist()
[1.0]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reuna.core.errors import PlanError
from reuna.core.records import Encoding, Setting
from reuna.learn.robust import CENTRE, FOLDS, Fold

Vector = NDArray[np.float32]
Delta = NDArray[np.float64]
State = Mapping[str, Vector]
Apply = Callable[[State, Vector, Delta, int, Mapping[str, float]], tuple[State, Vector]]


@dataclass(frozen=True)
class Strategy:
    """``slots`` name vectors kept from round to round, ``server`` and ``client`` settings and defaults.

    ``fold``: how single updates become a step; None: by their weighted mean, which sums alone tell.
    ``buffered``: a step is made whenever ``buffer`` updates are there, of any of the last models.
    """

    name: str
    slots: tuple[str, ...]
    server: Mapping[str, float]
    client: Mapping[str, float]
    update: Apply
    fold: Fold | None = None
    buffered: bool = False

    @property
    def singly(self) -> bool:
        """Whether the cloud has to see each update, not only sums."""
        return self.fold is not None or self.buffered

    def init(self, params: int) -> State:
        """State before the first round."""
        return {slot: np.zeros(params, np.float32) for slot in self.slots}

    def apply(
        self, state: State, model: Vector, delta: Delta, round: int, settings: Mapping[str, Setting]
    ) -> tuple[State, Vector]:
        """State and model after the round (rounds count from 1). Arguments are left as they are."""
        return self.update(state, model, delta, round, self.server_settings(settings))

    def server_settings(self, settings: Mapping[str, Setting]) -> dict[str, float]:
        """The strategy's own settings out of all, defaults filled in."""
        return {name: float(settings.get(name, default)) for name, default in self.server.items()}

    def check_rows(self, settings: Mapping[str, Setting], rows: int) -> None:
        """Raises `PlanError` when a round may have the updates of so few nodes that it cannot be folded."""
        if self.fold is not None:
            self.fold.check_rows(self.server_settings(settings), rows)

    def check_encoding(self, encoding: Encoding | None) -> None:
        """Raises `PlanError` when updates come in a form that cannot be folded."""
        if self.buffered and encoding is not None and (encoding.feedback or encoding.follow):
            raise PlanError(
                f"{self.name} has updates of several rounds in one step: what one did not send cannot go "
                "with the next, and all must be on one grid",
                "Set round.feedback = false and a round.grid_exponent.",
            )
        if self.fold is not None and encoding is not None and encoding.keep < 1:
            raise PlanError(
                f"round.keep is {encoding.keep}, and {self.name} has to see whole updates: of what most "
                "nodes do not send nothing would be learnt",
                "Set round.keep = 1, or choose another strategy.name.",
            )


def _average(
    state: State, model: Vector, delta: Delta, _round: int, s: Mapping[str, float]
) -> tuple[State, Vector]:
    return state, (model + s["server_rate"] * delta).astype(np.float32)


def _momentum(
    state: State, model: Vector, delta: Delta, _round: int, s: Mapping[str, float]
) -> tuple[State, Vector]:
    velocity = (s["momentum"] * state["velocity"].astype(np.float64) + delta).astype(np.float32)
    return {"velocity": velocity}, (model + s["server_rate"] * velocity.astype(np.float64)).astype(np.float32)


def _adam(
    state: State, model: Vector, delta: Delta, _round: int, s: Mapping[str, float]
) -> tuple[State, Vector]:
    first = s["beta1"] * state["first"].astype(np.float64) + (1 - s["beta1"]) * delta
    second = s["beta2"] * state["second"].astype(np.float64) + (1 - s["beta2"]) * delta * delta
    step = s["server_rate"] * first / (np.sqrt(second) + s["tau"])
    moved = (model + step).astype(np.float32)
    return {"first": first.astype(np.float32), "second": second.astype(np.float32)}, moved


def _from_centre(
    state: State, model: Vector, delta: Delta, round: int, s: Mapping[str, float]
) -> tuple[State, Vector]:
    return {CENTRE: delta.astype(np.float32)}, _average(state, model, delta, round, s)[1]


def _robust(fold: Fold) -> Strategy:
    slots, update = ((CENTRE,), _from_centre) if fold.centred else ((), _average)
    return Strategy(fold.name, slots, {"server_rate": 1.0, **fold.settings}, {}, update, fold)


STRATEGIES: dict[str, Strategy] = {
    strategy.name: strategy
    for strategy in (
        Strategy("fedavg", (), {"server_rate": 1.0}, {}, _average),
        Strategy("fedprox", (), {"server_rate": 1.0}, {"mu": 0.01}, _average),
        Strategy("fedavgm", ("velocity",), {"server_rate": 1.0, "momentum": 0.9}, {}, _momentum),
        Strategy(
            "fedadam",
            ("first", "second"),
            {"server_rate": 0.01, "beta1": 0.9, "beta2": 0.99, "tau": 1e-3},
            {},
            _adam,
        ),
        Strategy(
            "fedbuff",
            (),
            {"server_rate": 1.0, "buffer": 10, "max_staleness": 20},
            {},
            _average,
            buffered=True,
        ),
        *map(_robust, FOLDS.values()),
    )
}

#: Names of the settings that each works with.
TAKES: dict[str, tuple[str, ...]] = {each.name: (*each.server, *each.client) for each in STRATEGIES.values()}


def strategy(name: str) -> Strategy:
    """The strategy of that name. Raises `PlanError` that lists the known ones."""
    try:
        return STRATEGIES[name]
    except KeyError:
        known = ", ".join(STRATEGIES)
        raise PlanError(f"no strategy named {name!r}; known are {known}", "Choose one of these.") from None


def client_settings(name: str, settings: Mapping[str, Setting]) -> dict[str, Setting]:
    """What the learners are told: ``settings`` with the chosen strategy's client part, no other's."""
    chosen = strategy(name).client
    others = {key for other in STRATEGIES.values() for key in other.client} - set(chosen)
    told = {key: value for key, value in settings.items() if key not in others}
    return {**chosen, **told}
