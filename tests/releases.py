"""Releases for tests: as small as one can be, and every digest in it right."""

from __future__ import annotations

import msgspec
import numpy as np

from reuna.core.health import Health, as_settings
from reuna.trust.targets import Target
from reuna.wire import digest_bytes
from reuna.wire.build import sha256
from reuna.wire.release import LINEAGE, MODEL, NEEDED, About, encode


def release(version: int, project: str = "pumps", more: bytes = b"") -> bytes:
    """The file of a release; ``more`` is in its model."""
    parts = dict.fromkeys(NEEDED, b"{}\n" + more)
    return encode(About(project, version, f"r-{version}", "0" * 64), parts)


def model(seed: int = 1, wrong: bool = False) -> bytes:
    """A graph with its golden input; ``wrong``: its weights are not those that the golden answers are of."""
    from reuna.adapters.linear import SoftmaxClassifier
    from reuna.adapters.onnx_export import with_golden

    learner, rng = SoftmaxClassifier(4, 3), np.random.default_rng(seed)
    weights = {name: rng.normal(size=each.shape).astype(np.float32) for name, each in learner.init(1).items()}
    graph = with_golden(learner.export(weights))
    held = weights["weight"].tobytes()
    return graph.replace(held, (-weights["weight"]).tobytes()) if wrong else graph


def runnable(version: int, graph: bytes, rules: Health, project: str = "pumps") -> bytes:
    """The file of a release whose graph runs."""
    parts = dict.fromkeys(NEEDED, b"{}\n")
    settings = {"entry": "detector.model", **as_settings(rules)}
    parts |= {MODEL: graph, LINEAGE: msgspec.json.encode({"settings": settings})}
    return encode(About(project, version, f"r-{version}", "0" * 64), parts)


def target(
    data: bytes, number: int, project: str = "pumps", name: str = "", where: tuple[str, ...] = ()
) -> Target:
    """How a release is listed."""
    path = f"releases/{name or f'{project}-{number}'}"
    return Target(
        path, "release", 1, len(data), digest_bytes(data), sha256(data), "", {}, project, number, where
    )
