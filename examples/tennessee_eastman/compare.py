"""Prints the comparison on all three splits, without servers: local-only, federated, centralised.

    python examples/tennessee_eastman/compare.py

What lives here: the figures of docs/explanation/tennessee-eastman.md, in plain numpy. `make demo`
gives one split through the real path. All three methods see the same windows, features, number of
epochs, settings and calibration; the settings were chosen on validation runs alone.

Scores of a site: macro-F1 over its test windows. *seen* takes the windows that are normal or show
one of the four faults the site trained on, *unseen* those of the other three. *false alarms* is
the share of windows of normal runs with an alarm, *alarms* the share of unseen faults' windows with
any alarm, right or wrong name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reuna.demo import plants
from reuna.demo.project.detector.calibration import choose_threshold, decide
from reuna.demo.project.detector.features import (
    NORMAL,
    Floats,
    Labels,
    Scaler,
    apply_scaler,
    fit_scaler,
    windows,
)
from reuna.learn.strategies import STRATEGIES

CLASSES = np.array([NORMAL, *plants.FAULTS])
ROUNDS, EPOCHS, RATE, BATCH = 40, 1, 0.02, 32
SERVER = {"momentum": 0.9, "server_rate": 0.5}
SEED = 1
METRICS = ("all", "seen", "unseen", "false alarms", "alarms")
METHODS = ("local", "federated", "centralised")


@dataclass(frozen=True)
class Windows:
    """inputs: (windows, features + 1) float32, the last is 1; labels: (windows,), fault numbers."""

    inputs: Floats
    labels: Labels


@dataclass(frozen=True)
class Site:
    """One plant's windows in a split, and the faults it trains on."""

    faults: tuple[int, ...]
    train: Windows
    validation: Windows
    test: Windows
    normal_test: Windows
    extra: Windows


def load_site(plant: int, split: int, archive: plants.Archive) -> Site:
    """Windows of every part, scaled on the site's own normal training windows."""
    data = plants.load_plant(plant, split, archive)
    features, labels = _cut(data.train)
    scaler = fit_scaler(features[labels == NORMAL])
    return Site(
        data.faults,
        _windows(data.train, scaler),
        _windows(data.validation, scaler),
        _windows(data.test, scaler),
        _windows([run for run in data.test if run.fault == NORMAL], scaler),
        _windows(data.extra, scaler),
    )


def _windows(runs: Iterable[plants.Run], scaler: Scaler) -> Windows:
    features, labels = _cut(runs)
    inputs = apply_scaler(scaler, features)
    return Windows(np.c_[inputs, np.ones(len(inputs), np.float32)], labels)


def _cut(runs: Iterable[plants.Run]) -> tuple[Floats, Labels]:
    parts = [windows(run.values, run.labels) for run in runs]
    features, labels = zip(*parts, strict=True)
    return np.concatenate(features), np.concatenate(labels)


def chances(model: Floats, inputs: Floats) -> Floats:
    """Softmax of a linear model (features + 1, classes): (windows, classes)."""
    scores = inputs @ model
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares: Floats = powers / powers.sum(axis=1, keepdims=True)
    return shares


def train(model: Floats, data: Windows, epochs: int, random: np.random.Generator) -> Floats:
    """Plain SGD on the cross-entropy, batches of 32 in random order."""
    model = model.copy()
    wanted = (data.labels[:, None] == CLASSES).astype(np.float32)
    for _ in range(epochs):
        order = random.permutation(len(wanted))
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            inputs = data.inputs[batch]
            error = chances(model, inputs) - wanted[batch]
            model -= np.float32(RATE / len(batch)) * (inputs.T @ error)
    return model


def empty(site: Site) -> Floats:
    """The model before training: zeros (features + 1, classes)."""
    return np.zeros((site.train.inputs.shape[1], len(CLASSES)), np.float32)


def local(sites: Sequence[Site]) -> list[Floats]:
    """Each site alone, as many epochs as all rounds together."""
    return [
        train(empty(site), site.train, ROUNDS * EPOCHS, np.random.default_rng([SEED, place]))
        for place, site in enumerate(sites)
    ]


def federated(sites: Sequence[Site]) -> list[Floats]:
    """FedAvgM over the sites, weighted by their windows."""
    strategy = STRATEGIES["fedavgm"]
    model = empty(sites[0]).ravel()
    state = strategy.init(model.size)
    weights = np.array([len(site.train.labels) for site in sites], float)
    for turn in range(1, ROUNDS + 1):
        start = model.reshape(empty(sites[0]).shape)
        ends = [
            train(start, site.train, EPOCHS, np.random.default_rng([SEED, turn, place]))
            for place, site in enumerate(sites)
        ]
        moves = np.array([(end - start).ravel() for end in ends], float)
        state, model = strategy.apply(state, model, weights @ moves / weights.sum(), turn, SERVER)
    return [model.reshape(empty(sites[0]).shape)] * len(sites)


def centralised(sites: Sequence[Site]) -> list[Floats]:
    """All sites' windows in one place."""
    together = Windows(
        np.concatenate([site.train.inputs for site in sites]),
        np.concatenate([site.train.labels for site in sites]),
    )
    random = np.random.default_rng(SEED)
    return [train(empty(sites[0]), together, ROUNDS * EPOCHS, random)] * len(sites)


def decider(model: Floats, site: Site) -> Callable[[Windows], NDArray[np.integer]]:
    """Names the fault in each window, 0 for none; calibrated on the site's validation windows."""
    validation = site.validation
    normal = chances(model, validation.inputs[validation.labels == NORMAL])
    threshold = choose_threshold(normal)
    return lambda data: CLASSES[decide(chances(model, data.inputs), threshold)]


def macro_f1(truth: NDArray[np.integer], named: NDArray[np.integer], over: Sequence[int]) -> float:
    """Mean F1 of the classes ``over``, among the windows that truly show one of them."""
    within = np.isin(truth, over)
    truth, named = truth[within], named[within]
    hits = [np.sum((truth == each) & (named == each)) for each in over]
    sizes = [np.sum(truth == each) + np.sum(named == each) for each in over]
    return float(np.mean([2 * hit / max(1, size) for hit, size in zip(hits, sizes, strict=True)]))


def score(model: Floats, site: Site) -> dict[str, float]:
    """Every metric of one site on its test runs."""
    name = decider(model, site)
    truth, named = site.test.labels, name(site.test)
    unseen = [fault for fault in plants.FAULTS if fault not in site.faults]
    return {
        "all": macro_f1(truth, named, CLASSES.tolist()),
        "seen": macro_f1(truth, named, [NORMAL, *site.faults]),
        "unseen": macro_f1(truth, named, unseen),
        "false alarms": float(np.mean(name(site.normal_test) != NORMAL)),
        "alarms": float(np.mean(named[np.isin(truth, unseen)] != NORMAL)),
    }


def alarms_apart(model: Floats, site: Site) -> dict[int, float]:
    """Share of windows with any alarm, for each fault that nobody trained on."""
    named, truth = decider(model, site)(site.extra), site.extra.labels
    faults = (*plants.EXTRA_FAULTS, *plants.UNDETECTABLE_FAULTS)
    return {fault: float(np.mean(named[truth == fault] != NORMAL)) for fault in faults}


def main() -> None:
    """Train and print, split by split, then the faults reported apart."""
    archive = plants.read_archive()
    apart: dict[str, list[dict[int, float]]] = {method: [] for method in METHODS}
    print("in %, mean / worst of the six sites")
    print(f"{'split':7}{'method':13}" + "".join(f"{name:>15}" for name in METRICS))
    for split in range(plants.SPLITS):
        sites = [load_site(plant, split, archive) for plant in range(plants.PLANTS)]
        for method, fit in zip(METHODS, (local, federated, centralised), strict=True):
            models = fit(sites)
            scores = [score(model, site) for model, site in zip(models, sites, strict=True)]
            print(f"{split:<7}{method:13}" + "".join(f"{_cell(scores, name):>15}" for name in METRICS))
            apart[method] += [alarms_apart(m, site) for m, site in zip(models, sites, strict=True)]
    print("\nwindows with an alarm, faults nobody trained on, mean of plants and splits")
    for method, shares in apart.items():
        means = {fault: 100 * np.mean([share[fault] for share in shares]) for fault in shares[0]}
        print(f"{method:13}" + "  ".join(f"{fault}: {mean:.1f}" for fault, mean in means.items()))


def _cell(scores: list[dict[str, float]], name: str) -> str:
    values = [100 * score[name] for score in scores]
    worst = max(values) if name == "false alarms" else min(values)
    return f"{np.mean(values):.1f} / {worst:.1f}"


if __name__ == "__main__":
    main()
