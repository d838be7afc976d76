"""The story as one HTML page: no scripts, no network. Made from what was told and two results alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from reuna.demo.story import Sample, Told, mean
from reuna.fleet.report import BAR_COLOURS, STYLE, bar_plot, line_plot, percent, rounds_of, size

LEFT, WIDTH = 70.0, 890.0  #: of every picture over time
BIN_S = 5.0  #: windows of so long are one point
MOST_LEVEL = 2.0  #: drift beyond twice an alarm is drawn as that
NONE = "#e3e8ee"
OWN = """
.big{display:flex;gap:1rem;flex-wrap:wrap;margin:1.2rem 0}
.big div{flex:1;min-width:10rem;background:#f4f7fa;border-radius:8px;padding:.8rem 1rem}
.big b{display:block;font-size:1.6rem}.bad{color:#b5504f}.good{color:#2c7a4b}
pre{background:#f4f7fa;border-radius:8px;padding:.8rem 1rem;overflow-x:auto}
"""
NAMES = {
    "plants run": "plants run",
    "release 1": "release 1 everywhere",
    "drift": "drift",
    "alarm": "alarm",
    "run": "trains again",
    "champion": "new champion everywhere",
}


def render(told: Told, first: Mapping[str, Any], again: Mapping[str, Any]) -> str:
    """The whole page."""
    time = Time(told)
    parts = [
        _heading(told, first),
        _numbers(told),
        "<h2>What answered, edge by edge</h2>",
        _note("Each bar is an edge; its colour is the release that answers there. One plant is the canary."),
        _lanes(told, time),
        "<h2>Windows named rightly, live</h2>",
        _note(
            f"Of all plants, in steps of {BIN_S:g} s. What was true is known to the plants alone: no "
            "edge is told, and no answer leaves one."
        ),
        _shares(told, time),
        "<h2>Drift, as each edge tells it</h2>",
        _note(f"As a share of what makes an alarm; beyond {MOST_LEVEL:g} it is drawn as that. {told.alarm}."),
        _levels(told, time),
        "<h2>Before and after, plant by plant</h2>",
        _table(told, first, again),
        "<h2>Training, and training again</h2>",
        _training(told, first, again),
        "<h2>What left the plants while the first model was trained</h2>",
        bar_plot(
            "bytes by kind", [("all nodes", {k: float(v) for k, v in first["bytes_by_kind"].items()})], size
        ),
        "<h2>The commands</h2>",
        _note("What a person typed. After the last line but one nobody typed anything."),
        f"<pre>{escape(chr(10).join(told.commands))}</pre>",
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>The story of six plants</title>'
        '<meta name="viewport" content="width=device-width">'
        f"<style>{STYLE}{OWN}</style></head><body>{''.join(parts)}</body></html>\n"
    )


class Time:
    """From the plants' begin to the last look: where a moment is in a picture."""

    def __init__(self, told: Told) -> None:
        self.since = told.moments["plants run"]
        last = [each.at for each in told.samples[-1:]]
        self.until = max([*told.moments.values(), *last, self.since + 1.0])
        self._marks = [(told.moments[key], name) for key, name in NAMES.items() if key in told.moments]

    def x(self, at: float) -> float:
        """In the units of a picture."""
        part = (min(max(at, self.since), self.until) - self.since) / (self.until - self.since)
        return LEFT + part * (WIDTH - LEFT)

    def marks(self, height: float, *, named: bool) -> str:
        """What happened, as lines from top to bottom; names are on three lines by turns."""
        found = []
        for place, (at, name) in enumerate(self._marks):
            x = self.x(at)
            found.append(
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{46 if named else 30}" y2="{height}" stroke="#1c2430" '
                f'stroke-dasharray="3 3" stroke-opacity=".55">'
                f"<title>{escape(name)}, {at - self.since:.0f} s</title></line>"
            )
            if named:
                left, anchor = (-3.0, "end") if x > 0.8 * WIDTH else (3.0, "start")
                found.append(
                    f'<text x="{x + left:.1f}" y="{12 + 14 * (place % 3)}" font-size="11" '
                    f'text-anchor="{anchor}">{escape(name)} {at - self.since:.0f} s</text>'
                )
        return "".join(found)


def _note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'


def _heading(told: Told, first: Mapping[str, Any]) -> str:
    return (
        "<h1>Six plants, one model, and a drift that nobody had to look after</h1>"
        f'<p class="note">{escape(told.run)} · {len(told.edges)} edges, 2 fogs, 1 cloud · '
        f"{first['rounds']} rounds of {escape(first['strategy'])} · all on one machine, over mutual TLS</p>"
    )


def _numbers(told: Told) -> str:
    """What a person wants to know first."""
    same = sum(version == told.champion for version in told.edges.values())
    figures = [
        ("good", _share(mean(told.before)), "named rightly before the drift"),
        ("bad", _share(mean(told.drifted)), "by the same release after it"),
        ("good", _share(mean(told.after)), f"by release {told.champion}"),
        ("", f"{told.detected_s:.0f} s", "from drift to alarm"),
        ("", f"{told.recovered_s:.0f} s", "from drift to a new champion everywhere, without a hand"),
        ("", f"{same} of {len(told.edges)}", f"edges run release {told.champion}"),
    ]
    cells = "".join(
        f'<div><b class="{kind}">{value}</b>{escape(what)}</div>' for kind, value, what in figures
    )
    return f'<div class="big">{cells}</div>'


def _picture(name: str, height: float, body: str) -> str:
    return (
        f'<div class="wide" tabindex="0"><svg viewBox="0 0 {WIDTH + 10:g} {height:g}" role="img" '
        f'aria-label="{escape(name)}">{body}</svg></div>'
    )


def _lanes(told: Told, time: Time) -> str:
    """A bar for each edge, in the colours of releases."""
    names = sorted(told.edges)
    height, body = 50.0 + 22 * len(names), []
    for place, name in enumerate(names):
        y = 50 + 22 * place
        body.append(f'<text x="0" y="{y + 13}" font-size="12">{escape(name)}</text>')
        for since, until, version in _spans(told.samples, name, time.until):
            colour = BAR_COLOURS[(version - 1) % len(BAR_COLOURS)] if version else NONE
            said = f"{name}: release {version}" if version else f"{name}: no release yet"
            wide = max(0.0, time.x(until) - time.x(since))
            body.append(
                f'<rect x="{time.x(since):.1f}" y="{y}" width="{wide:.1f}" height="16" fill="{colour}">'
                f"<title>{escape(said)}</title></rect>"
            )
    versions = sorted({each for sample in told.samples for each in sample.versions.values() if each})
    key = "".join(
        f'<span><i style="background:{BAR_COLOURS[(each - 1) % len(BAR_COLOURS)]}"></i>release {each}</span>'
        for each in versions
    )
    return f'<p class="key">{key}</p>' + _picture(
        "release by edge", height, "".join(body) + time.marks(height, named=True)
    )


def _spans(samples: Sequence[Sample], name: str, end: float) -> Iterable[tuple[float, float, int]]:
    """From when to when an edge ran which version; 0: none."""
    begun: tuple[float, int] | None = None
    for each in samples:
        version = each.versions.get(name, 0)
        if begun is None:
            begun = (each.at, version)
        elif version != begun[1]:
            yield (begun[0], each.at, begun[1])
            begun = (each.at, version)
    if begun is not None:
        yield (begun[0], end, begun[1])


def _shares(told: Told, time: Time) -> str:
    """Rightly named windows of all plants over time."""
    bins: dict[int, list[bool]] = {}
    for found in told.windows.values():
        for ends, right in found:
            if ends >= time.since:
                bins.setdefault(int((ends - time.since) / BIN_S), []).append(right)
    points = [(time.since + (n + 0.5) * BIN_S, sum(each) / len(each)) for n, each in sorted(bins.items())]
    height = 200.0
    axis = "".join(
        f'<text x="30" y="{_y(part, height) + 4:.1f}" font-size="11">{100 * part:.0f} %</text>'
        f'<line x1="{LEFT}" x2="{WIDTH}" y1="{_y(part, height):.1f}" y2="{_y(part, height):.1f}" '
        'stroke="#dde3ea"/>'
        for part in (0.0, 0.5, 1.0)
    )
    line = _line([(time.x(at), _y(part, height)) for at, part in points], BAR_COLOURS[2], 2.5)
    return _picture("windows named rightly", height, axis + time.marks(height, named=False) + line)


def _levels(told: Told, time: Time) -> str:
    """A line for each edge; an alarm is at 1."""
    height, body = 200.0, []
    at_one = _y(1 / MOST_LEVEL, height)
    body.append(
        f'<text x="30" y="{at_one + 4:.1f}" font-size="11">alarm</text>'
        f'<line x1="{LEFT}" x2="{WIDTH}" y1="{at_one:.1f}" y2="{at_one:.1f}" stroke="{BAR_COLOURS[4]}"/>'
    )
    for place, name in enumerate(sorted(told.edges)):
        points = [
            (time.x(each.at), _y(min(each.levels[name], MOST_LEVEL) / MOST_LEVEL, height))
            for each in told.samples
            if name in each.levels
        ]
        body.append(_line(points, BAR_COLOURS[place % len(BAR_COLOURS)], 1.6))
    return _picture("drift by edge", height, "".join(body) + time.marks(height, named=False))


def _y(part: float, height: float) -> float:
    return height - 10 - part * (height - 50)


def _line(points: Sequence[tuple[float, float]], colour: str, wide: float) -> str:
    found = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{found}" fill="none" stroke="{colour}" stroke-width="{wide}"/>'


def _table(told: Told, first: Mapping[str, Any], again: Mapping[str, Any]) -> str:
    """Live shares, and the score on the test recordings, of both models."""
    before, after = ({row["site"]: row["federated"] for row in each["sites"]} for each in (first, again))
    metric = first["metric"]
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{_share(told.before[name])}</td>"
        f'<td class="fail">{_share(told.drifted[name])}</td><td>{_share(told.after[name])}</td>'
        f"<td>{_score(metric, before.get(name))}</td><td>{_score(metric, after.get(name))}</td>"
        f"<td>release {told.edges[name]}</td></tr>"
        for name in sorted(told.edges)
    )
    heads = (
        "plant",
        "live, before",
        "live, drifted",
        "live, after",
        "test, first",
        "test, again",
        "runs now",
    )
    names = "".join(f"<th>{each}</th>" for each in heads)
    return f'<div class="wide" tabindex="0"><table><tr>{names}</tr>{rows}</table></div>'


def _training(told: Told, first: Mapping[str, Any], again: Mapping[str, Any]) -> str:
    """The loss of both runs, and where each is told whole."""
    found = []
    for each, why in ((first, "begun by a person"), (again, "begun by the alarm")):
        losses = [float(fields["loss"]) for fields in rounds_of(each)]
        href = "report.html" if each is first else f"../{told.retrained}/report.html"
        found.append(
            f'<p class="note"><a href="{escape(href)}">{escape(each["run"])}</a>, {why}: mean training loss '
            f"of {len(losses)} rounds</p>" + (line_plot(losses, height=120) if len(losses) > 1 else "")
        )
    return "".join(found)


def _share(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f} %"


def _score(metric: str, scores: Mapping[str, float] | None) -> str:
    return percent(metric, scores[metric]) if scores and metric in scores else "–"
