"""The summary of `reuna test` in Markdown, for a comment on a merge request: GitHub's and GitLab's dialect.

It is never longer than `LONGEST`, however many sites and failed tests there are, and nothing that the
project says (names, messages) is read as Markdown or HTML.
"""

from __future__ import annotations

from collections.abc import Iterator

from reuna import __version__
from reuna.core.foreign import readable
from reuna.fleet.own_tests import OwnTests
from reuna.fleet.testing import Findings
from reuna.sim.judge import FAILED, LEFT_OUT, PASSED, WARNED, Judged, worst

LONGEST = 60_000  #: characters; GitHub takes 65,536
MOST_SITES, MOST_CASES, MOST_SAID = 25, 20, 600
SIGNS = {PASSED: "✅", WARNED: "⚠️", FAILED: "❌", LEFT_OUT: "➖"}
_MARKUP = str.maketrans({sign: f"&#{ord(sign)};" for sign in "&<>|`*_[]\\#~!"})


def markdown(found: Findings) -> str:
    """The whole page."""
    return "\n".join(
        [*_head(found), "", *_scenarios(found), "", *_sites(found), *_own(found), "", _foot(found)]
    )


def plain(text: str, most: int = MOST_SAID) -> str:
    """Foreign text as one line that shows as it is, cut to ``most`` characters."""
    line = readable(" ".join(text.split()))
    return (line if len(line) <= most else f"{line[: most - 1]}…").translate(_MARKUP)


def _head(found: Findings) -> Iterator[str]:
    word = "passed" if found.passed else "failed"
    warned = f", {found.warnings} with a warning" if found.warnings else ""
    sign = SIGNS[(WARNED if warned else PASSED) if found.passed else FAILED]
    yield f"### {sign} reuna test of {plain(found.settings.name, 80)}: {word}{warned}"


def _scenarios(found: Findings) -> Iterator[str]:
    yield "| | scenario | site hit | worst site | what was found | time |"
    yield "|---|---|---|---|---|---:|"
    for each in found.scenarios:
        played, verdict = each.played, each.verdict
        cells = (
            SIGNS[verdict.status],
            f"{played.name}: {verdict.status}",
            plain(played.site, 80),
            _worst(each, found.lower),
            plain(verdict.why),
            f"{played.seconds:.1f} s",
        )
        yield f"| {' | '.join(cells)} |"


def _worst(each: Judged, lower: bool) -> str:
    scores = each.played.scores
    if not scores:
        return ""
    site = worst(scores, lower)
    return f"{plain(site, 80)} {scores[site]:.4g}"


def _sites(found: Findings) -> Iterator[str]:
    """A row per site, the worst of the undisturbed run first."""
    ordered = by_badness(found)
    if not ordered:
        return
    shown = [each for each in found.scenarios if each.played.scores]
    better = "less" if found.lower else "more"
    metric = plain(found.settings.metric, 80)
    yield f"Metric {metric} at each site, {better} is better; in italics where the fault hit:"
    yield ""
    yield f"| site | by chance | {' | '.join(each.played.name for each in shown)} |"
    yield f"|---|---:|{'---:|' * len(shown)}"
    for place, site in enumerate(ordered[:MOST_SITES]):
        name = f"**{plain(site, 80)}** (worst)" if place == 0 else plain(site, 80)
        cells = [name, _number(found.chance.get(site)), *(_cell(each, site) for each in shown)]
        yield f"| {' | '.join(cells)} |"
    if len(ordered) > MOST_SITES:
        yield f"\nand {len(ordered) - MOST_SITES} better sites."


def by_badness(found: Findings) -> list[str]:
    """The sites that measured the metric undisturbed, worst first."""
    scores, sign = found.scenarios[0].played.scores, -1 if found.lower else 1
    return sorted(scores, key=lambda site: (sign * scores[site], site))


def _cell(each: Judged, site: str) -> str:
    text = _number(each.played.scores.get(site))
    return f"*{text}*" if site == each.played.site else text


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _own(found: Findings) -> Iterator[str]:
    if found.own is None:
        return
    yield f"\npytest: {found.own.said}, {found.own.seconds:.1f} s."
    yield from _bad(found.own)


def _bad(own: OwnTests) -> Iterator[str]:
    cases = own.bad
    for case in cases[:MOST_CASES]:
        name = plain(f"{case.classname}.{case.name}", 120)
        yield f"- {name}: {plain(case.message, 180)}"
    if len(cases) > MOST_CASES:
        yield f"- and {len(cases) - MOST_CASES} more."


def _foot(found: Findings) -> str:
    changed = " and changed files" if found.commit.endswith("+") else ""
    commit = f"commit {plain(found.commit.rstrip('+'), 80)}{changed}, " if found.commit else ""
    about = f"{commit}seed {found.settings.seed}, {found.settings.rounds} rounds, {found.seconds:.1f} s"
    return f"<sub>{about}, Reuna {__version__}</sub>\n"
