"""Whether a project passes the scenarios of `reuna test`: what was played in, a verdict out. Pure.

    chance    the better of what the first model scores and of what the learner gets from shuffled labels
    gain      how far a score is beyond chance
    loss      the part of a site's gain that a fault took from it: 0 nothing, 1 all, more: worse than chance

A fault is judged at the sites it did not hit; late labels at all sites, for nobody is away or lies.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from reuna.core.gates import LOWER_IS_BETTER
from reuna.core.scenarios import ScenarioSettings
from reuna.sim.scenarios import SHUFFLED, UNDISTURBED, UNTRAINED

PASSED, WARNED, FAILED, LEFT_OUT = "passed", "warned", "failed", "left out"
MARGIN = 0.05  #: part of the way from chance to a faultless score that counts as having learnt
OTHERS = ("dropout", "poisoned")  #: faults that are judged where they did not hit
MEANS = ("fedavg", "fedprox", "fedavgm", "fedadam")  #: strategies that take a weighted mean
SiteScores = Mapping[str, float]


@dataclass(frozen=True)
class Played:
    """What came of one scenario.

    ``scores``: the metric at each site, ``counted``: rounds in which updates of the hit ``site`` were
    in the sum, ``clipped``: values that the grid cut over all rounds. ``broke``: why the run ended
    early. ``unplayable``: why it could not be played here. ``held``: why a real run would have waited.
    """

    name: str
    site: str = ""
    scores: SiteScores = field(default_factory=dict)
    rounds: int = 0
    counted: int = 0
    clipped: int = 0
    model: str = ""
    seconds: float = 0.0
    broke: str = ""
    unplayable: str = ""
    held: str = ""


@dataclass(frozen=True)
class Limits:
    """What a run is held to: the metric's name, the project's ``[test]``, its strategy."""

    metric: str
    asked: ScenarioSettings
    strategy: str

    @property
    def lower(self) -> bool:
        """Whether less is better."""
        return self.metric in LOWER_IS_BETTER


@dataclass(frozen=True)
class Verdict:
    """What a scenario is found to be, and why; ``losses`` by site, where it was judged by them."""

    status: str
    why: str
    losses: SiteScores = field(default_factory=dict)


@dataclass(frozen=True)
class Judged:
    """A scenario: what came of it and what it is found to be."""

    played: Played
    verdict: Verdict


def judge_all(played: Sequence[Played], limits: Limits) -> tuple[dict[str, float], list[Judged]]:
    """What chance gives at each site, and every scenario with its verdict, the undisturbed one first.

    What a fault does to a model that is not good enough without it is not judged.
    """
    by_name = {each.name: each for each in played}
    whole = by_name[UNDISTURBED]
    by_chance = chance(by_name[UNTRAINED], by_name.get(SHUFFLED), whole, limits.lower)
    first = judge_undisturbed(whole, by_chance, limits)
    spoilt = Verdict(LEFT_OUT, "the undisturbed run has failed already")
    found = [Judged(whole, first)]
    for each in played:
        if each.name not in {UNTRAINED, SHUFFLED, UNDISTURBED}:
            failed = first.status == FAILED
            found.append(Judged(each, spoilt if failed else judge_fault(each, whole, by_chance, limits)))
    return by_chance, found


def beyond(score: float, other: float, lower: bool) -> float:
    """How much better than another a score is."""
    return other - score if lower else score - other


def chance(untrained: Played, shuffled: Played | None, undisturbed: Played, lower: bool) -> dict[str, float]:
    """What each site scores without learning anything.

    Where shuffled labels give the very model of the true ones, training reads no labels, and what it
    gives is not chance: then the first model alone is.
    """
    best = min if lower else max
    by_luck = shuffled.scores if shuffled is not None and shuffled.model != undisturbed.model else {}
    return {site: best(score, by_luck.get(site, score)) for site, score in untrained.scores.items()}


def gains(scores: SiteScores, by_chance: SiteScores, lower: bool) -> dict[str, float]:
    """How far each site's score is beyond chance, where chance is known."""
    known = scores.keys() & by_chance.keys()
    return {site: beyond(scores[site], by_chance[site], lower) for site in sorted(known)}


def worst(scores: SiteScores, lower: bool) -> str:
    """The site with the worst score, the first by name of equals."""
    return min(scores, key=lambda site: (-scores[site] if lower else scores[site], site))


# --- nothing goes wrong -----------------------------------------------------------------------


def judge_undisturbed(played: Played, by_chance: SiteScores, limits: Limits) -> Verdict:
    """An honest run: does it learn, at the worst site too?"""
    if played.broke:
        return Verdict(FAILED, f"the run ended early: {played.broke}")
    if not played.scores:
        return Verdict(FAILED, f"no site measured {limits.metric}")
    if unknown := sorted(played.scores.keys() - by_chance.keys()):
        return Verdict(FAILED, f"the first model cannot be scored at {', '.join(unknown)}")
    site = worst(played.scores, limits.lower)
    found = f"worst site {site}: {played.scores[site]:.4g}"
    least = limits.asked.min_score
    if least is not None:
        enough = beyond(played.scores[site], least, limits.lower) >= 0
        word = "at most" if limits.lower else "at least"
        return Verdict(PASSED if enough else FAILED, f"{found}, asked is {word} {least:g}")
    dull = [
        site for site in sorted(played.scores) if not learnt(site, played.scores, by_chance, limits.lower)
    ]
    if dull:
        said = ", ".join(f"{each} {played.scores[each]:.4g} (chance {by_chance[each]:.4g})" for each in dull)
        return Verdict(FAILED, f"no better than chance: {said}")
    return Verdict(PASSED, f"{found}, by chance {by_chance[site]:.4g}")


def learnt(site: str, scores: SiteScores, by_chance: SiteScores, lower: bool) -> bool:
    """Whether a site's score is a `MARGIN` of the way beyond chance.

    A faultless score is 0 where less is better, else 1, or the score itself where that is more.
    """
    faultless = 0.0 if lower else max(1.0, scores[site])
    way = abs(beyond(faultless, by_chance[site], lower))
    return beyond(scores[site], by_chance[site], lower) > MARGIN * way


# --- something does ---------------------------------------------------------------------------


def judge_fault(played: Played, undisturbed: Played, by_chance: SiteScores, limits: Limits) -> Verdict:
    """A run with a fault against the one without. A required fault that shows nothing is not withstood."""
    found = _against(played, undisturbed, by_chance, limits)
    if found.status == LEFT_OUT:
        return replace(found, status=_most(LEFT_OUT, played.name, limits))
    return found


def _against(played: Played, undisturbed: Played, by_chance: SiteScores, limits: Limits) -> Verdict:
    if played.unplayable:
        return Verdict(LEFT_OUT, played.unplayable)
    if played.broke:
        return Verdict(_grade(played.name, limits), f"the run ended early: {played.broke}")
    if unnoticed := _unnoticed(played, undisturbed):
        return unnoticed
    found = losses(played, undisturbed, by_chance, limits.lower)
    if not found:
        return Verdict(LEFT_OUT, "no site that it could harm had learnt anything")
    return _by_losses(played, undisturbed.scores, found, limits)


def losses(played: Played, undisturbed: Played, by_chance: SiteScores, lower: bool) -> dict[str, float]:
    """The part of its gain that each judged site lost; sites that had gained nothing are left out."""
    before = gains(undisturbed.scores, by_chance, lower)
    after = gains(played.scores, by_chance, lower)
    judged = [
        site
        for site in sorted(before)
        if before[site] > 0 and site in after and not (site == played.site and played.name in OTHERS)
    ]
    return {site: 1 - after[site] / before[site] for site in judged}


def _unnoticed(played: Played, undisturbed: Played) -> Verdict | None:
    """A fault that did not act proves nothing."""
    if played.name == "dropout" and played.counted > played.rounds // 2:
        times = f"{played.counted} of {played.rounds} rounds"
        return Verdict(FAILED, f"{played.site} was away, but its updates were counted in {times}")
    if played.model == undisturbed.model:
        return Verdict(LEFT_OUT, "the fault changes nothing: the model is the same, bit by bit")
    return None


def _by_losses(played: Played, before: SiteScores, found: SiteScores, limits: Limits) -> Verdict:
    site = worst(found, lower=True)
    said = f"{site} fell most, from {before[site]:.4g} to {played.scores[site]:.4g}: "
    said += f"{percent(found[site])} of its gain over chance"
    if found[site] <= 0:
        said = "no other site fell" if played.name in OTHERS else "no site fell"
    if played.name == "poisoned":
        said = f"{said}; {stopped_by(played, limits)}"
    if found[site] > limits.asked.max_lost:
        said = f"{said}; at most {percent(limits.asked.max_lost)} are allowed"
        return Verdict(_grade(played.name, limits), said, found)
    if played.held:
        return Verdict(_most(WARNED, played.name, limits), f"{played.held}; {said}", found)
    return Verdict(PASSED, said, found)


def stopped_by(played: Played, limits: Limits) -> str:
    """What stood between a poisoned site and the model, as far as it can be seen."""
    met = [f"{played.site}'s updates were counted in {played.counted} of {played.rounds} rounds"]
    if played.clipped:
        met.append(f"the grid cut {played.clipped} values")
    if played.counted and limits.strategy in MEANS:
        met.append(f"{limits.strategy} takes a weighted mean, which has no defence against them")
    return ", ".join(met)


def percent(part: float) -> str:
    """A part as whole per cent; a loss below nothing is a gain."""
    return f"{100 * part:.0f} %"


def _grade(fault: str, limits: Limits) -> str:
    """A site that lies is stopped by no mean, so a project must ask to be held to it."""
    return _most(WARNED if fault == "poisoned" else FAILED, fault, limits)


def _most(status: str, fault: str, limits: Limits) -> str:
    return FAILED if fault in limits.asked.required else status


def passed(statuses: Collection[str]) -> bool:
    """Whether all scenarios together pass."""
    return FAILED not in statuses
