"""The edge's answer to a plan of the task ``check``: could it take part in such a run? Nothing is trained.

The site's policy is asked first. Code that it lets run is loaded, in a sandbox and with the data that a run
would give it; of other code no line is read. The data are held against the contract where code may run, or
where the policy lets counts of them leave: else nothing would be said of them without somebody's approval.

A plan may also ask for nothing but which data the node has, so that a run whose inputs an earlier one had is
not done again. Then no code is loaded at all, and the fingerprint leaves as it does in a run, or stays.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import msgspec

from reuna.core import plans, readiness
from reuna.core.contract import KEY as CONTRACT
from reuna.core.contract import Line, contract
from reuna.core.errors import ABSENCES, ContractBroken, DataError, ReunaError
from reuna.core.fingerprint import Window
from reuna.core.ports import Blob, Link
from reuna.core.readiness import MANY, Needs, needs_of, plain, word_of
from reuna.core.records import Member, Metrics, Plan, Rehearsal, Said, Setting, Terms

MIB = 1 << 20
OF_DATA = (DataError.code, ContractBroken.code)


@dataclass(frozen=True)
class Looked:
    """What a worker found. ``code``: of the error that it met, '' without; ``level``: of its sandbox.

    ``weak``: that is less than node or policy ask for, and no line of the project was read. Sizes in MiB;
    ``free_mib``: what there was before it was started, None where the system does not say.
    """

    lines: tuple[Line, ...] = ()
    missing: tuple[str, ...] = ()
    other: tuple[str, ...] = ()
    code: str = ""
    level: int = 0
    weak: bool = False
    samples: int | None = None
    peak_mib: float = 0.0
    address_mib: float = 0.0
    free_mib: float | None = None
    limit_mib: float = 0.0


class Workshop(Protocol):
    """Where code is loaded and data are looked at, in a worker of its own."""

    async def look(
        self, bundle: Blob | None, settings: Mapping[str, Setting], needs: Needs, terms: Terms
    ) -> Looked:
        """Without a bundle no code of a project is loaded; without a contract in the settings no data are.

        Raises `DiskFull`, `WorkerFailed`, and `DataError` for tables that cannot be copied.
        """

    async def survey(self, terms: Terms) -> Window | None:
        """The data as they are now, every byte read; None when nobody can tell."""


Fetch = Callable[[], Awaitable[Blob]]
Tell = Callable[[Window], Awaitable[bool]]


async def answer(
    name: str, plan: Plan, data: bytes, link: Link, workshop: Workshop, fetch: Fetch
) -> tuple[Member, int]:
    """The words for the parent, and the level of the sandbox in which code ran.

    ``fetch`` brings the plan's bundle. Raises `NotApproved` and `Refused` when the policy changed in
    between, and what looking raises.
    """
    needs = needs_of(plan.settings)
    rehearsed = await link.rehearse(data, MANY)
    runs = _all_yes(rehearsed, "code", "data")
    bundle, terms = None, rehearsed.terms
    if runs:
        bundle, terms = await fetch(), await link.approved(plans.work(plan))  # stands in the ledger
    reads = runs or _all_yes(rehearsed, "data", "statistic")
    settings = plain(plan.settings)
    shown = settings if reads else {key: value for key, value in settings.items() if key != CONTRACT}
    looked = await workshop.look(bundle, shown, needs, terms)
    if looked.samples is not None:
        rehearsed = await link.rehearse(data, looked.samples)
    found = _memory(plan, needs, looked)
    said = (
        *(_of_code(looked) if each.about == "code" and runs else each for each in rehearsed.said),
        _of_contract(looked) if reads else _unread(rehearsed),
        *_of_libraries(looked),
        *([] if found is None else [_of_memory(found, runs and not looked.code and not looked.weak)]),
    )
    return Member(name, metrics=found or {}, said=said), looked.level if runs else 0


async def answer_data(
    name: str, plan: Plan, data: bytes, link: Link, workshop: Workshop, tell: Tell
) -> Member:
    """The words for the parent, after ``tell`` has told which data these are, where the policy lets it.

    Of a node whose policy would let it take no part nothing is told: there is nothing to compare. The
    contract counts the rows, by which the policy judges what leaves. ``tell`` says whether it left.
    Raises what looking raises.
    """
    rehearsed = await link.rehearse(data, MANY)
    if not _all_yes(rehearsed, "code", "data", "statistic"):
        return Member(name, said=rehearsed.said)
    looked, settings = Looked(), plain(plan.settings)
    window = await workshop.survey(rehearsed.terms)
    if contract(settings).looks:
        looked = await workshop.look(None, settings, Needs(), rehearsed.terms)
    if window is None or looked.code:
        broken = Said("contract", "no", _closed(looked.code or DataError.code))
        return Member(name, said=(*rehearsed.said, broken))
    told = await tell(window)
    said = (each if told or each.about != "statistic" else Said("statistic", "no") for each in rehearsed.said)
    return Member(name, said=(*said, Said("contract")))


def _all_yes(rehearsed: Rehearsal, *about: str) -> bool:
    return all(word_of(rehearsed.said, each) == "yes" for each in about)


def _of_code(looked: Looked) -> Said:
    """Of code that the policy lets run. What is wrong with data is said of the contract."""
    if looked.weak:
        return Said("code", "no", "sandbox")
    wrong = looked.code if looked.code not in ("", *OF_DATA) else ""
    return Said("code", "no" if wrong else "yes", _closed(wrong))


def _of_contract(looked: Looked) -> Said:
    wrong = looked.code if looked.code in OF_DATA else ""
    return Said("contract", "no" if wrong else "yes", wrong)


def _unread(rehearsed: Rehearsal) -> Said:
    """Why the data were not looked at: what stands in the way of code stands in theirs."""
    why = next(each for each in rehearsed.said if each.word != "yes" and each.about in ("code", "data"))
    return msgspec.structs.replace(why, about="contract")


def _of_libraries(looked: Looked) -> list[Said]:
    lacking = [Said("libraries", "no", name) for name in looked.missing]
    other = [Said("libraries", "yes", name) for name in looked.other]
    return lacking + other or [Said("libraries")]


def _memory(plan: Plan, needs: Needs, looked: Looked) -> Metrics | None:
    """None where the system does not say what there is."""
    if looked.free_mib is None:
        return None
    model = plan.model_size / MIB
    address, limit = looked.address_mib, looked.limit_mib
    return readiness.memory(needs, looked.peak_mib, address, model, looked.free_mib, limit)


def _of_memory(found: Metrics, loaded: bool) -> Said:
    return Said("memory", "yes" if readiness.fits(found) else "no", "" if loaded else readiness.LOWER_BOUND)


def _closed(code: str) -> str:
    return code if code in ABSENCES or not code else ReunaError.code
