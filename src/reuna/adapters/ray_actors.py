"""Objects held by actors of a Ray cluster, and calls of their methods.

Ray ships code and data between machines as pickles and runs what comes: a cluster belongs into a network
whose every machine you trust, never between plants. Which cluster: that of ``RAY_ADDRESS``, else one is
started here and ended with the last actor.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from reuna.adapters.processes import silence_makers
from reuna.core.errors import ExtraMissing, PlanError, ServerFailed

LOCAL_STORE = 256 * 2**20  #: bytes of shared memory for models, of a cluster that is started here


class Ended:
    """Stands for the value of a call whose actor ended; says how."""

    def __init__(self, how: str) -> None:
        self.how = how


class _Holder:
    """Runs in the cluster."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._held = make()

    def call(self, name: str, *values: Any) -> Any:
        return getattr(self._held, name)(*values)


class RayActors:
    """So many actors, told apart by their place, each with one call at a time."""

    def __init__(self, actors: int, code: Path | None = None) -> None:
        """``code``: a folder whose modules the cluster does not have. Raises `ExtraMissing`, `PlanError`,
        `ServerFailed`.
        """
        try:
            import ray
        except ImportError:
            raise ExtraMissing("Ray is not installed", "Install it: pip install 'reuna[ray]'.") from None
        self._ray = ray
        self._started = not ray.is_initialized()
        if self._started:
            _join_or_start(ray, actors)
        self._actors: dict[int, Any] = {}
        self._calls: dict[Any, int] = {}
        _ship(ray, code)
        there = int(ray.cluster_resources().get("CPU", 0))
        if there < actors:
            self.close()
            raise PlanError(
                f"the Ray cluster has {there} CPUs, and {actors} processes were asked for",
                f"Ask for at most {there}, or add machines to the cluster.",
            )

    def start(self, place: int, make: Callable[[], Any]) -> None:
        """Begin the actor of a place, anew where it was lost; it holds what ``make`` gives there."""
        self._drop(place)
        holder = self._ray.remote(num_cpus=1, max_restarts=0)(_Holder)
        self._actors[place] = holder.remote(make)

    def keep(self, value: Any) -> Any:
        """Put a value into the cluster's memory once, for many calls."""
        return self._ray.put(value)

    def call(self, place: int, name: str, *values: Any) -> None:
        """Begin a call of what the place holds."""
        self._calls[self._actors[place].call.remote(name, *values)] = place

    def wait(self, seconds: float | None) -> list[tuple[int, Any]]:
        """Values of calls that are done, `Ended` where an actor ended; [] when none is after ``seconds``."""
        if not self._calls:
            return []
        done, _ = self._ray.wait(list(self._calls), num_returns=1, timeout=seconds)
        return [(self._calls.pop(each), self._value(each)) for each in done]

    def _value(self, call: Any) -> Any:
        try:
            return self._ray.get(call)
        except self._ray.exceptions.RayActorError as error:
            return Ended(" ".join(str(error).split())[:200])

    def _drop(self, place: int) -> None:
        actor = self._actors.pop(place, None)
        if actor is not None:
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ray.kill(actor)

    def close(self) -> None:
        """End the actors, and the cluster if it was started or joined here."""
        for place in list(self._actors):
            self._drop(place)
        self._calls.clear()
        if self._started and self._ray.is_initialized():
            self._ray.shutdown()


def _join_or_start(ray: Any, actors: int) -> None:
    silence_makers()
    quiet = {"configure_logging": False, "log_to_driver": False}
    address = os.environ.get("RAY_ADDRESS")
    try:
        if address:
            ray.init(**quiet)
        else:
            own = {"num_cpus": actors, "object_store_memory": LOCAL_STORE, "include_dashboard": False}
            ray.init("local", **own, **quiet)
    except Exception as error:  # Ray raises plain ones too
        what = f"no Ray cluster answers at RAY_ADDRESS={address}" if address else "Ray did not start"
        step = (
            "Start one with `ray start --head`, or unset RAY_ADDRESS."
            if address
            else "Try `ray start --head`."
        )
        raise ServerFailed(f"{what}: {' '.join(str(error).split())[:200]}", step) from error


def _ship(ray: Any, code: Path | None) -> None:
    """Have the modules of a folder travel with what is made of them."""
    folders: Sequence[Path] = [code.resolve()] if code is not None else []
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if file and any(folder in Path(file).resolve().parents for folder in folders):
            ray.cloudpickle.register_pickle_by_value(module)
