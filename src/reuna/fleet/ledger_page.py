"""A ledger as one HTML page: no scripts, no network, readable offline for years.

Made from the ledger alone (`ledger_summary.summarise`) and the verdict on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from reuna.fleet.report import size

#: By flow; what is not named gets the last.
COLOURS = {
    "model_update": "#2f7fb8",
    "metric": "#c9853b",
    "statistic": "#6a9a4c",
    "prediction": "#8a6bb1",
    "window": "#4b9c9b",
    "log": "#b5544d",
    "presence": "#7a8794",
}
OTHER = "#3d4a57"
DAYS = 120  #: at most so many bars; the newest
WIDTH, HEIGHT, LEFT, BOTTOM = 800, 220, 64, 24
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:64rem;padding:0 1rem;color:#1c2430}
h1{font-size:1.5rem;margin-bottom:.2rem}h2{font-size:1.1rem;margin:2rem 0 .4rem}
table{border-collapse:collapse;width:100%}th,td{padding:.3rem .5rem;text-align:left;vertical-align:top;
border-bottom:1px solid #dde3ea;overflow-wrap:anywhere}th{color:#5b6775;font-weight:600;white-space:nowrap}
.n{text-align:right;white-space:nowrap}.note{color:#5b6775}code{font-size:.9em}
.verdict{border-left:.4rem solid #4c8a4c;background:#eef6ee;padding:.6rem 1rem;margin:1rem 0}
.bad{border-color:#b5544d;background:#fbecea}.tiles{display:flex;flex-wrap:wrap;gap:.8rem;margin:1rem 0}
.tiles div{flex:1 1 9rem;border:1px solid #dde3ea;border-radius:.4rem;padding:.5rem .8rem;color:#5b6775}
.tiles b{display:block;font-size:1.4rem;color:#1c2430}svg{width:100%;height:auto}
.key span{margin-right:1rem;white-space:nowrap}.key i{display:inline-block;width:.8em;height:.8em;
border-radius:2px;margin-right:.35em}@media print{body{margin:0;max-width:none}}
"""
Row = Mapping[str, Any]


def render(summary: Row, verdict: Row) -> str:
    """The whole page."""
    owner = verdict["ledger"] or {"site": "?", "node": "?"}
    title = f"{owner['site']} · {owner['node']}: what left"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="note">{_period(summary)}, days in UTC, from the ledger of this node alone.</p>',
        _verdict(verdict),
        _tiles(summary),
        _section("Bytes per day", _chart(summary["days"])),
        _section("What left, to whom, under which rule", _flows(summary["flows"])),
        _section("What was refused, and why", _refused(summary["refused"])),
        _section("Privacy budget", _epsilon(summary["epsilon"])),
        _section("Who hides behind an update", _cohorts(summary["cohorts"])),
        _section("Code", _code(summary["code"])),
        _section("Policy", _policies(summary["policies"])),
        _section("Irregularities", _irregular(summary)),
    ]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>'
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _section(title: str, body: str) -> str:
    return f"<h2>{escape(title)}</h2>\n{body}\n"


def _period(summary: Row) -> str:
    return f"{escape(summary['since'])} to {escape(summary['until'])}" if summary["records"] else "No records"


def _verdict(verdict: Row) -> str:
    if not verdict["good"]:
        message = escape(verdict["fault"]["message"])
        return (
            f'<p class="verdict bad"><b>The ledger is not as its node wrote it.</b> {message}. This page '
            f"shows only the {verdict['records']} records before.</p>"
        )
    said = [f"<b>The ledger is whole.</b> {verdict['records']} records, each linked to the one before."]
    said.append(_covered("The node has signed", verdict["signed"]))
    said.append(_covered("The cloud has countersigned", verdict["countersigned"]))
    said.append(_covered("Heads kept outside the ledger agree", verdict["kept_elsewhere"]))
    if not verdict["keys_given"]:
        key = escape(verdict["ledger"]["key"])
        said.append(f"The node's key is the one that the ledger itself names: <code>{key}</code>.")
    return f'<p class="verdict">{" ".join(text for text in said if text)}</p>'


def _covered(who: str, seq: int) -> str:
    return f"{who} up to record {seq}." if seq >= 0 else ""


def _tiles(summary: Row) -> str:
    sent = sum(flow["payload_bytes"] for flow in summary["flows"])
    messages = sum(flow["messages"] for flow in summary["flows"])
    refused = sum(row["count"] for row in summary["refused"])
    tiles = [(size(sent), f"left in {messages} messages"), (str(refused), "refused")]
    tiles += [
        (f"{row['left']:.3g}", f"ε left, per {row['unit'] or 'unit'}")
        for row in summary["epsilon"]
        if row["left"] is not None
    ]
    return (
        f'<div class="tiles">{"".join(f"<div><b>{escape(a)}</b>{escape(b)}</div>" for a, b in tiles)}</div>'
    )


def _chart(days: Mapping[str, Mapping[str, int]]) -> str:
    if not days:
        return '<p class="note">Nothing left.</p>'
    shown = list(days.items())[-DAYS:]
    flows = sorted({flow for _, sums in shown for flow in sums}, key=_order)
    top = max(sum(sums.values()) for _, sums in shown) or 1
    step = (WIDTH - LEFT) / max(len(shown), 7)
    bars = "".join(_bar(n, day, sums, flows, top, step) for n, (day, sums) in enumerate(shown))
    key = "".join(f'<span><i style="background:{_colour(flow)}"></i>{escape(flow)}</span>' for flow in flows)
    return (
        f'<p class="key">{key}</p><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="bytes per day by kind">{_axis(top)}{bars}{_days(shown, step)}</svg>'
    )


def _bar(n: int, day: str, sums: Mapping[str, int], flows: Sequence[str], top: int, step: float) -> str:
    y, shapes = float(HEIGHT - BOTTOM), []
    for flow in flows:
        tall = (HEIGHT - BOTTOM - 12) * sums.get(flow, 0) / top
        if tall:
            y -= tall
            said = f"{escape(day)}, {escape(flow)}: {size(sums[flow])}"
            shapes.append(
                f'<rect x="{LEFT + (n + 0.1) * step:.1f}" y="{y:.2f}" width="{step * 0.8:.1f}" '
                f'height="{tall:.2f}" fill="{_colour(flow)}"><title>{said}</title></rect>'
            )
    return "".join(shapes)


def _axis(top: int) -> str:
    lines = []
    for share in (0.0, 0.5, 1.0):
        y = HEIGHT - BOTTOM - (HEIGHT - BOTTOM - 12) * share
        lines.append(
            f'<line x1="{LEFT}" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="#dde3ea"/>'
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" font-size="12" fill="#5b6775">'
            f"{size(top * share)}</text>"
        )
    return "".join(lines)


def _days(shown: Sequence[tuple[str, Any]], step: float) -> str:
    every = max(1, -(-80 // int(step)))  # a date is some 70 units wide
    return "".join(
        f'<text x="{LEFT + (n + 0.5) * step:.1f}" y="{HEIGHT - 6}" text-anchor="middle" font-size="12" '
        f'fill="#5b6775">{escape(day)}</text>'
        for n, (day, _) in enumerate(shown)
        if n % every == 0
    )


def _order(flow: str) -> tuple[int, str]:
    """Known kinds first, in the order of their colours."""
    return (list(COLOURS).index(flow) if flow in COLOURS else len(COLOURS)), flow


def _colour(flow: str) -> str:
    return COLOURS.get(flow, OTHER)


def _flows(rows: Sequence[Row]) -> str:
    cells = [
        [
            row["flow"],
            row["to"],
            row["rule"],
            row["messages"],
            size(row["payload_bytes"]),
            row["refused"] or "",
        ]
        for row in rows
    ]
    return _table(["kind", "to", "rule", "#messages", "#payload", "#refused there"], cells, "Nothing left.")


def _refused(rows: Sequence[Row]) -> str:
    cells = [
        [row["flow"], row["to"], row["rule"], row["reason"], row["count"], row["first"], row["last"]]
        for row in rows
    ]
    return _table(["kind", "to", "rule", "why", "#times", "first", "last"], cells, "Nothing was refused.")


def _epsilon(rows: Sequence[Row]) -> str:
    cells = [
        [
            row["unit"] or "not said",
            f"{row['spent']:.4g}",
            "not said" if row["left"] is None else f"{row['left']:.4g}",
        ]
        for row in rows
    ]
    return _table(["ε protects one", "#ε spent", "#ε left"], cells, "No budget was used.")


def _cohorts(rows: Sequence[Row]) -> str:
    cells = [
        [
            row["run"],
            row["messages"],
            row["smallest"] or "none",
            row["largest"] or "none",
            row["fewest_samples"],
        ]
        for row in rows
    ]
    head = ["run", "#messages", "#smallest cohort", "#largest cohort", "#fewest samples"]
    return _table(head, cells, "No update left.")


def _code(rows: Sequence[Row]) -> str:
    cells = [
        [
            row["code"][:16] or "built in",
            row["decision"],
            row["reason"],
            "" if row["level"] is None else row["level"],
            row["count"],
            row["first"],
            row["last"],
        ]
        for row in rows
    ]
    head = ["bundle", "decision", "what happened", "#sandbox level", "#times", "first", "last"]
    return _table(head, cells, "No code was pushed to this node.")


def _policies(rows: Sequence[Row]) -> str:
    cells = [[row["time"], row["serial"], row["policy"][:16], row["decision"], row["reason"]] for row in rows]
    return _table(
        ["when", "#serial", "digest", "decision", "what happened"], cells, "The policy did not change."
    )


def _irregular(summary: Row) -> str:
    found = [
        f"No record between {gap['from']} and {gap['to']} ({gap['hours']} h)." for gap in summary["gaps"]
    ]
    found += [
        f"{row['time']}: {row['bytes']} bytes of a record that was never acknowledged were cut off."
        for row in summary["recovered"]
    ]
    if summary["clock_set_back"]:
        found.append(f"The node's clock went back {summary['clock_set_back']} times.")
    if summary["unfinished"]:
        found.append(f"{summary['unfinished']} intents have no outcome; they count as sent.")
    items = "".join(f"<li>{escape(text)}</li>" for text in found)
    return f"<ul>{items}</ul>" if items else '<p class="note">None.</p>'


def _table(head: Sequence[str], rows: Sequence[Sequence[object]], nothing: str) -> str:
    """A table; a heading with ``#`` before it is of numbers."""
    if not rows:
        return f'<p class="note">{escape(nothing)}</p>'
    marks = [' class="n"' if name.startswith("#") else "" for name in head]
    top = "".join(
        f"<th{mark}>{escape(name.removeprefix('#'))}</th>" for name, mark in zip(head, marks, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(f"<td{mark}>{escape(str(cell))}</td>" for cell, mark in zip(row, marks, strict=True))
        + "</tr>"
        for row in rows
    )
    return f"<table><tr>{top}</tr>{body}</table>"
