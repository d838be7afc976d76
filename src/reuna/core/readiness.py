"""Before a run: what nodes are asked, and what they may say. Nothing is trained for it.

A plan of the task ``check`` has what a run's plan would have, and among its settings under `KEY` what only
the project's own machine knows: the `Needs`. A node answers with a `Said` for each thing of `ABOUT`.
Its words are from closed lists; of names it says none but those of modules that the needs themselves named.

>>> settings = {"epochs": 2, **as_settings(Needs((Module("torch", "torch", "2.13.0"),), ("all",)))}
>>> needs_of(settings).modules[0].name, plain(settings)
('torch', {'epochs': 2})
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import msgspec

from reuna.core.errors import ABSENCES, SettingsError
from reuna.core.foreign import UNREADABLE
from reuna.core.records import Metrics, Said, Setting, Word

KEY = "check"  #: of the needs among the settings
FLOWS = ("model_update", "metric", "statistic")
#: What a node is asked about, and what no means.
ABOUT: dict[str, str] = {
    "code": "the code may not run here, or not yet; or it ran and failed",
    "data": "the policy lets code read nothing here, or not all that the contract names",
    "contract": "the data break the contract, or cannot be read",
    "libraries": "a module that the code imports is not installed; `why` names it",
    "memory": "the worker would need more than there is",
    "model_update": "the policy would not let the update leave",
    "metric": "the policy would not let the results leave, or not under these names",
    "statistic": "the policy lets no counts leave; a run goes on without them",
}
ADVICE = ("statistic",)  #: a no that stands in the way of nothing
LOWER_BOUND = "lower-bound"  #: why of memory: the code may not run yet, so its own need is not in it
NEEDED, FREE = "memory_needed_mib", "memory_free_mib"  #: metrics beside the words
MANY = 2**40  #: samples, of data that were not looked at
MAX_MODULES = 200
#: Models that a worker holds at once while it trains. `benchmarks.worker_memory` finds 4.2 for linear models,
#: 3.2 for scikit-learn, 5.1 for torch with SGD and 7.4 with Adam.
MODELS = 8.0
#: MiB that a module loads in its first fit, whatever the model; 83 with SGD, 128 with Adam.
FIRST_FIT = {"torch": 128.0}
_WORSE: tuple[Word, ...] = ("yes", "wait", "no")


class Module(msgspec.Struct, frozen=True, omit_defaults=True):
    """A foreign module that the code imports; the package that has it and its version where it was packed."""

    name: str
    package: str = ""
    version: str = ""


class Needs(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a project needs of a node. ``metrics``: names that its settings speak of.

    ``schema``: SHA-256 of the names and shapes of its model's tensors. ``window``: the node is asked for
    nothing but which data it has (`reuna.core.fingerprint`); no code is loaded for that.
    """

    modules: tuple[Module, ...] = ()
    metrics: tuple[str, ...] = ()
    schema: str = ""
    window: bool = False


def as_settings(needs: Needs) -> dict[str, Setting]:
    """The needs as they stand among the settings of a plan."""
    return {KEY: msgspec.json.encode(needs).decode()}


def needs_of(settings: Mapping[str, Setting]) -> Needs:
    """The needs among a plan's settings. Raises `SettingsError` for a text that says none."""
    try:
        found = msgspec.json.decode(str(settings.get(KEY, "{}")), type=Needs)
    except (*UNREADABLE, UnicodeEncodeError) as error:
        raise SettingsError(f"the needs among the settings cannot be read: {error}") from error
    if len(found.modules) > MAX_MODULES:
        raise SettingsError(f"{len(found.modules)} modules are asked for, at most {MAX_MODULES} may be")
    return found


def plain(settings: Mapping[str, Setting]) -> dict[str, Setting]:
    """The settings as the learner knows them."""
    return {name: value for name, value in settings.items() if name != KEY}


def allowed(said: Iterable[Said], needs: Needs, reasons: Collection[str]) -> bool:
    """Whether an answer has only words of the closed lists, and of each thing one.

    ``reasons``: the words of policies.
    """
    every = list(said)
    names = {module.name for module in needs.modules}
    keys = {(each.about, each.why if each.about == "libraries" else "") for each in every}
    return len(keys) == len(every) and all(
        each.about in ABOUT and each.why in _whys(each.about, names, reasons) for each in every
    )


def _whys(about: str, modules: Collection[str], reasons: Collection[str]) -> set[str]:
    if about == "libraries":
        return {"", *modules}
    if about == "memory":
        return {"", LOWER_BOUND}
    own = set(ABSENCES) if about in ("code", "contract") else set()
    return {"", *reasons, *own}


def word_of(said: Iterable[Said], about: str) -> Word:
    """The worst that is said about a thing; no when nothing is."""
    words = [each.word for each in said if each.about == about]
    return max(words, key=_WORSE.index, default="no")


def worse(one: Iterable[Said], other: Iterable[Said]) -> tuple[Said, ...]:
    """What two places on the way say together: the worse of what both speak of; the first, when equal."""
    others = {each.about: each for each in other if each.about in FLOWS}
    return tuple(
        found
        if (found := others.get(each.about)) and _WORSE.index(found.word) > _WORSE.index(each.word)
        else each
        for each in one
    )


def against(said: Iterable[Said]) -> tuple[Said, ...]:
    """What stands in the way of a run."""
    return tuple(each for each in said if each.word != "yes" and each.about not in ADVICE)


def memory(
    needs: Needs, peak_mib: float, address_mib: float, model_mib: float, free_mib: float, limit_mib: float
) -> Metrics:
    """What a worker would need and what there is for it, MiB.

    ``peak_mib``: of a worker with code and data loaded, and its address space, of which ``limit_mib`` is
    the most. The models that it holds while it trains come on top (`MODELS`); what the learner works with
    besides, as activations, is not known before and not in it.
    """
    beside = max(0.0, address_mib - peak_mib)
    first = sum(FIRST_FIT.get(module.name, 0.0) for module in needs.modules)
    return {
        NEEDED: round(peak_mib + first + MODELS * model_mib, 1),
        FREE: round(max(0.0, min(free_mib, limit_mib - beside)), 1),
    }


def fits(found: Metrics) -> bool:
    """Whether `memory` found enough."""
    return found[NEEDED] <= found[FREE]
