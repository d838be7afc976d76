"""A finished run as one HTML page: no scripts, no network, readable offline for years.

Made from ``result.json`` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from reuna.core.contract import RULES
from reuna.core.errors import REFUSALS
from reuna.core.gates import LOWER_IS_BETTER
from reuna.fleet.gates import SIGNS, grid, held, sentence
from reuna.loop.validate import METHODS

COLOURS = {"local": "#c9853b", "federated": "#2f7fb8", "centralised": "#7a8794"}
BAR_COLOURS = (
    "#2f7fb8",
    "#c9853b",
    "#4d9a6a",
    "#8a63a8",
    "#b5504f",
    "#7a8794",
    "#c2a83e",
    "#4fa3a5",
    "#555b66",
)
PAYLOAD = (
    "Payload of both directions, each once however often it had to be sent; TLS, HTTP and NATS overhead, "
    "acknowledgements and the hashes of blocks are not in."
)
NO_ROWS = "no payload of kind raw exists; make drill NAME=flows records every line that leaves"
NAMES = {
    "all": "all",
    "seen": "seen",
    "unseen": "unseen",
    "auroc": "AUROC",
    "detected": "detected",
    "false_alarms": "false alarms",
    "rmse": "RMSE",
    "mae": "MAE",
    "late": "late",
}
PLAIN_NUMBERS = ("rmse", "mae", "loss")  #: metrics that are no fractions
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:78rem;padding:0 1rem;color:#1c2430}
h1{font-size:1.5rem;margin-bottom:.2rem}h2{font-size:1.1rem;margin-top:2rem}
.wide{overflow-x:auto}.wide svg{min-width:36rem}
table{border-collapse:collapse;width:100%}th,td{padding:.3rem .5rem;text-align:right;white-space:nowrap;
border-bottom:1px solid #dde3ea}th:first-child,td:first-child{text-align:left}
.sites th,.sites td{padding:.3rem;font-size:.85rem}.sites tr+tr th{font-size:.75rem;text-align:right}
.group{text-align:center;border-left:2px solid #dde3ea}.worst td{background:#fff4e0}
.fail{background:#fbdedc}.open{background:#fff4e0}
.note{color:#5b6775}svg{width:100%;height:auto}.key span{margin-right:1rem}
.key i{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin-right:.35em}
"""


def render(result: Mapping[str, Any]) -> str:
    """The whole page."""
    parts = [
        _heading(result),
        _section("Per site", _site_table(result) + _site_bars(result) + _wall_table(result)),
        _section("Gates", _gates(result)),
        _section("Data contract", _contract(result)),
        _section("Training", _loss_plot(result) + _warnings(result)),
        _section("Bytes over each link", _links(result)),
        _section("What left the nodes", _flows(result)),
        _section("Memory", _processes(result)),
        _scaling(result),
    ]
    body = "\n".join(part for part in parts if part)
    title = escape(f"{result['project']} · {result['run']}")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width">'
        f"<style>{STYLE}</style></head><body>{body}</body></html>\n"
    )


def percent(name: str, value: float) -> str:
    """A metric as people read it: fractions in percent, errors as they are."""
    return f"{value:.2f}" if name in PLAIN_NUMBERS else f"{100 * value:.1f} %"


def metric_names(result: Mapping[str, Any]) -> list[str]:
    """Metrics worth a column, the run's own first."""
    found = {name for row in result["sites"] for method in METHODS for name in row.get(method, {})}
    first = [result["metric"], *NAMES]
    return [name for name in dict.fromkeys(first) if name in found] or sorted(found)[:4]


def _section(title: str, body: str) -> str:
    return f"<h2>{escape(title)}</h2>\n{body}" if body else ""


def _wide(body: str) -> str:
    """A table or a plot, which is scrolled by itself where the page is too narrow for it."""
    return f'<div class="wide" tabindex="0">{body}</div>'


def _table(heads: Sequence[str], rows: str) -> str:
    """Rows below one line of names."""
    names = "".join(f"<th>{escape(head)}</th>" for head in heads)
    return _wide(f"<table><tr>{names}</tr>{rows}</table>")


def _heading(result: Mapping[str, Any]) -> str:
    worst = result.get("worst_site") or {}
    said = ""
    if worst:
        value = percent(worst["metric"], worst["value"])
        said = f" Worst site: <b>{escape(worst['site'])}</b>, {escape(worst['metric'])} {value}."
    came = "".join(f" It ran {escape(words)}." for words in source_words(result))
    return (
        f"<h1>{escape(result['project'])}: {escape(result['task'])}</h1>"
        f'<p class="note">{escape(result["run"])} · {result["rounds"]} rounds of '
        f"{escape(result.get('strategy', ''))} · {result['wall_s']} s in all · model "
        f"<code>{escape(result['model_digest'][:16])}</code>.{said}{came}</p>"
    )


def source_words(result: Mapping[str, Any]) -> list[str]:
    """Which code a run had, where a repository or a build says so, and which run it tried again."""
    before = (result.get("asked") or {}).get("retries")
    return [*_code_words(result.get("source") or {}), *([f"again after {before}"] if before else [])]


def _code_words(source: Mapping[str, Any]) -> list[str]:
    if not source.get("commit"):
        return []
    changed = " with changes that are in no commit" if source.get("dirty") else ""
    build = f", build {source['build'][:16]}" if source.get("build") else ""
    return [f"code {source['code'][:16]} of commit {source['commit'][:12]}{changed}{build}"]


def _site_table(result: Mapping[str, Any]) -> str:
    names = metric_names(result)
    methods = [m for m in METHODS if any(row.get(m) for row in result["sites"])]
    top = "".join(f'<th class="group" colspan="{len(methods)}">{escape(NAMES.get(n, n))}</th>' for n in names)
    below = "".join(f"<th>{escape(method)}</th>" for _ in names for method in methods)
    worst = (result.get("worst_site") or {}).get("site")
    rows = "".join(_site_cells(row, names, methods, row["site"] == worst) for row in result["sites"])
    heads = f'<tr><th rowspan="2">site</th>{top}</tr><tr>{below}</tr>'
    return _wide(f'<table class="sites">{heads}{rows}</table>')


def _site_cells(row: Mapping[str, Any], names: Sequence[str], methods: Sequence[str], worst: bool) -> str:
    cells = "".join(
        f"<td>{percent(name, row[method][name]) if name in row.get(method, {}) else '–'}</td>"
        for name in names
        for method in methods
    )
    mark = ' class="worst"' if worst else ""
    return f"<tr{mark}><td>{escape(row['site'])}</td>{cells}</tr>"


def _gates(result: Mapping[str, Any]) -> str:
    judged = result.get("gates")
    if not judged:
        return ""
    names = {each["gate"]: each["bound"] for each in judged["verdicts"]}
    heads = ("site", *(f"{name} {bound:g}" for name, bound in names.items()))
    rows = "".join(
        f"<tr><td>{escape(site)}</td>"
        + "".join(
            f'<td class="{each["outcome"]}" title="{escape(each.get("why", ""))}">'
            f"{held(each)} {SIGNS[each['outcome']]}</td>"
            for each in row
        )
        + "</tr>"
        for site, row in grid(judged["verdicts"])
    )
    return f"<p>{escape(sentence(judged))}</p>{_table(heads, rows)}"


def _site_bars(result: Mapping[str, Any]) -> str:
    metric = metric_names(result)[0] if metric_names(result) else ""
    methods = [m for m in METHODS if any(metric in row.get(m, {}) for row in result["sites"])]
    values = [row[m][metric] for row in result["sites"] for m in methods if metric in row.get(m, {})]
    if not values:
        return ""
    top = max(values) if metric in LOWER_IS_BETTER or max(values) > 1 else 1.0
    width, height, gap = 800, 180, 800 / len(result["sites"])
    bar = gap * 0.8 / len(methods)
    shapes = []
    for index, row in enumerate(result["sites"]):
        for place, method in enumerate(methods):
            value = row.get(method, {}).get(metric)
            if value is None:
                continue
            tall = (height - 30) * value / (top or 1.0)
            x = index * gap + gap * 0.1 + place * bar
            shapes.append(
                f'<rect x="{x:.1f}" y="{height - 20 - tall:.1f}" width="{bar * 0.92:.1f}" '
                f'height="{tall:.1f}" fill="{COLOURS[method]}"><title>{escape(row["site"])} {method}: '
                f"{percent(metric, value)}</title></rect>"
            )
        middle = index * gap + gap / 2
        shapes.append(
            f'<text x="{middle:.1f}" y="{height - 4}" text-anchor="middle" font-size="12">'
            f"{escape(row['site'])}</text>"
        )
    key = "".join(f'<span><i style="background:{COLOURS[m]}"></i>{m}</span>' for m in methods)
    return f'<p class="key">{escape(NAMES.get(metric, metric))}: {key}</p>' + _wide(
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(metric)} per site">'
        f"{''.join(shapes)}</svg>"
    )


def rounds_of(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Fields of every closed round, in order."""
    events = [e["fields"] for e in result.get("timeline", []) if e["what"] == "round"]
    return sorted(events, key=lambda fields: fields["round"])


def _loss_plot(result: Mapping[str, Any]) -> str:
    rounds = rounds_of(result)
    losses = [float(fields["loss"]) for fields in rounds]
    if len(losses) < 2:
        return ""
    seconds = sorted(float(fields["seconds"]) for fields in rounds)
    said = f"{len(rounds)} rounds, {1000 * seconds[len(seconds) // 2]:.0f} ms each (median)"
    return f'<p class="note">Mean training loss by round. {said}.</p>' + line_plot(losses)


def warnings(result: Mapping[str, Any]) -> list[str]:
    """Sentences about what was refused and what did not fit the grid."""
    said = [
        f"{each['at']} refused {each['sender']} {each['times']} times: {REFUSALS[each['reason']]}"
        f" ({each['reason']})"
        for each in result.get("refused", [])
    ]
    kept = (result.get("asked", {}).get("encoding") or {}).get("feedback", False)
    if (cut := result.get("saturated", 0)) and not kept:  # else they are sent later
        said.append(f"Warning: {cut} values were cut to the grid's ends: raise round.grid_exponent")
    return said


def contract_sentences(result: Mapping[str, Any]) -> list[str]:
    """Which node's data break the contract, by which rule."""
    said = []
    for report in result.get("contract", []):
        broken = [line for line in report["rules"] if line.get("broken")]
        what = ", ".join(
            f"{line['rule']} of {line['signal']} ({line['failed']} of {line['failed'] + line['passed']} fail)"
            for line in broken
        )
        if broken:
            said.append(f"{report['node']}'s data break version {report['version']} of the contract: {what}")
    return said


def _contract(result: Mapping[str, Any]) -> str:
    """Node by rule: how many cells or rows fail, of how many."""
    reports = result.get("contract", [])
    rules = [
        rule for rule in RULES if any(line["rule"] == rule for each in reports for line in each["rules"])
    ]
    if not rules:
        return ""
    heads = "".join(f"<th>{escape(rule)}</th>" for rule in rules)
    rows = "".join(f"<tr><td>{escape(r['node'])}</td>{_contract_cells(r, rules)}</tr>" for r in reports)
    meaning = "; ".join(f"{rule}: {RULES[rule]}" for rule in rules)
    broken = "".join(f"<p><b>{escape(line)}.</b></p>" for line in contract_sentences(result))
    return (
        f'<p class="note">Failures of each rule, of how many: counts that the nodes made before any code of '
        f"the project ran. {escape(meaning)}. –: not looked at, or withheld by the site's policy.</p>"
        f"<table><tr><th>node</th>{heads}</tr>{rows}</table>{broken}"
    )


def _contract_cells(report: Mapping[str, Any], rules: Sequence[str]) -> str:
    whole = {line["rule"]: line for line in report["rules"] if not line.get("signal")}
    bad = {line["rule"] for line in report["rules"] if line.get("broken")}
    cells = []
    for rule in rules:
        line = whole.get(rule)
        text = f"{line['failed']} / {line['passed'] + line['failed']}" if line else "–"
        cells.append(f"<td>{f'<b>{text}</b>' if rule in bad else text}</td>")
    return "".join(cells)


def _warnings(result: Mapping[str, Any]) -> str:
    return "".join(f"<p>{escape(line)}.</p>" for line in warnings(result))


def line_plot(values: Sequence[float], width: int = 800, height: int = 180) -> str:
    """A line over equal steps as SVG, the range written at the axis."""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    step = (width - 60) / (len(values) - 1)
    points = " ".join(
        f"{50 + i * step:.1f},{height - 20 - (height - 40) * (v - low) / span:.1f}"
        for i, v in enumerate(values)
    )
    return _wide(
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="loss by round">'
        f'<text x="0" y="24" font-size="12">{high:.3g}</text>'
        f'<text x="0" y="{height - 18}" font-size="12">{low:.3g}</text>'
        f'<polyline points="{points}" fill="none" stroke="{COLOURS["federated"]}" stroke-width="2"/></svg>'
    )


def wall_times(result: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Seconds of each way of training with its evaluation, those that were measured."""
    took = result.get("wall_by_method_s", {})
    return [(method, took[method]) for method in METHODS if method in took]


def _wall_table(result: Mapping[str, Any]) -> str:
    times = wall_times(result)
    if not times:
        return ""
    cells = "".join(f"<td>{seconds:.2f} s</td>" for _, seconds in times)
    heads = ("wall time", *(method for method, _ in times))
    return _table(heads, f"<tr><td>training and evaluation</td>{cells}</tr>")


def link_rows(result: Mapping[str, Any]) -> list[tuple[str, str, int, int]]:
    """Child, parent, payload bytes up and down, of every link."""
    found: dict[tuple[str, str], list[int]] = {}
    for place, name in enumerate(("flows", "came")):
        for flow in result.get(name, []):
            ends = flow["link"].split(" → ")
            child, parent = ends if name == "flows" else reversed(ends)
            found.setdefault((child, parent), [0, 0])[place] += flow["bytes"]
    return [(child, parent, up, down) for (child, parent), (up, down) in sorted(found.items())]


def _links(result: Mapping[str, Any]) -> str:
    rows = link_rows(result)
    if not rows:
        return ""
    lines = "".join(
        f"<tr><td>{escape(child)} – {escape(parent)}</td><td>{size(up)}</td><td>{size(down)}</td></tr>"
        for child, parent, up, down in rows
    )
    kinds: dict[str, dict[str, float]] = {}
    for flow in (*result.get("flows", []), *result.get("came", [])):
        of_link = kinds.setdefault(flow["link"], {})
        of_link[flow["kind"]] = of_link.get(flow["kind"], 0) + flow["bytes"]
    return (
        f'<p class="note">{PAYLOAD}</p>{bar_plot("bytes by link and kind", sorted(kinds.items()), size)}'
        f"{_table(('child – parent', 'up', 'down'), lines)}"
    )


def bar_plot(
    title: str, bars: Sequence[tuple[str, Mapping[str, float]]], shown: Callable[[float], str]
) -> str:
    """Lying bars as SVG, each of one or more parts, with a key when there are several kinds of part."""
    kinds = sorted({kind for _, parts in bars for kind in parts})
    colours = {kind: BAR_COLOURS[place % len(BAR_COLOURS)] for place, kind in enumerate(kinds)}
    top = max(sum(parts.values()) for _, parts in bars) or 1.0
    shapes = []
    for place, (name, parts) in enumerate(bars):
        at, y = 220.0, 20 * place
        shapes.append(f'<text x="212" y="{y + 13}" font-size="11" text-anchor="end">{escape(name)}</text>')
        for kind, value in sorted(parts.items()):
            wide = 500 * value / top
            said = f"{name}: {kind} {shown(value)}"
            shapes.append(
                f'<rect x="{at:.1f}" y="{y + 3}" width="{wide:.1f}" height="14" fill="{colours[kind]}">'
                f"<title>{escape(said)}</title></rect>"
            )
            at += wide
        whole = escape(shown(sum(parts.values())))
        shapes.append(f'<text x="{at + 6:.1f}" y="{y + 14}" font-size="11">{whole}</text>')
    key = "".join(f'<span><i style="background:{colours[k]}"></i>{escape(k)}</span>' for k in kinds)
    return (f'<p class="key">{key}</p>' if len(kinds) > 1 else "") + _wide(
        f'<svg viewBox="0 0 800 {20 * len(bars)}" role="img" aria-label="{escape(title)}">'
        f"{''.join(shapes)}</svg>"
    )


def _flows(result: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{escape(flow['link'])}</td><td>{escape(flow['kind'])}</td>"
        f"<td>{flow['messages']}</td><td>{size(flow['bytes'])}</td></tr>"
        for flow in result.get("flows", [])
    )
    if not rows:
        return ""
    return (
        f"<p>{NO_ROWS[0].upper()}{NO_ROWS[1:]}. Every payload passes the node's egress, which asks the "
        f"site's policy and writes it into the site's ledger before it leaves.</p>"
        f"{_table(('link', 'kind', 'messages', 'payload'), rows)}"
        f"{_refused(result)}{_rules(result)}"
    )


def _refused(result: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{escape(each['node'])}</td><td>{escape(each['kind'])}</td>"
        f"<td>{escape(last(each['to']))}</td><td>{escape(each['why'])}</td></tr>"
        for each in result.get("refused_by_policy", [])
    )
    if not rows:
        return ""
    return "<h3>What the sites' policies refused</h3>" + _table(("node", "kind", "to", "why"), rows)


def _rules(result: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{escape(each['node'])}</td><td>{escape(each['rule'])}</td><td>{escape(last(each['to']))}</td>"
        f"<td>{each['messages']}</td><td>{size(each['bytes'])}</td></tr>"
        for each in result.get("left_by_rule", [])
    )
    if not rows:
        return ""
    heads = ("node", "rule of its policy", "to", "messages", "payload")
    return "<h3>Under which rule</h3>" + _table(heads, rows)


def last(identity: str) -> str:
    """The name at the end of an identity; the whole address of a sink."""
    return identity.rpartition("/")[2] if identity.startswith("spiffe://") else identity


def _processes(result: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{escape(process['name'])}</td><td>{process['peak_mib']:.0f} MiB</td></tr>"
        for process in result.get("processes", [])
    )
    if not rows:
        return ""
    peaks = [(each["name"], {"peak": each["peak_mib"]}) for each in result["processes"]]
    bars = bar_plot("peak memory by process", peaks, lambda mib: f"{mib:.0f} MiB")
    return bars + _table(("process", "peak resident"), rows)


def _scaling(result: Mapping[str, Any]) -> str:
    scaling = result.get("scaling")
    if not scaling:
        return ""
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{case['wall_s']:.2f} s</td><td>{case['peak_mib']:.0f} MiB</td>"
        f"<td>{case['data_mib']:.1f} MiB</td><td>{percent('all', case['all'])}</td></tr>"
        for name, case in scaling["cases"].items()
    )
    return _section(
        "One pooled data set on eight equal devices",
        f'<p class="note">Every device is limited to {100 * scaling["cpu_share"]:.0f} % of one core.</p>'
        + _table(("", "wall time", "peak memory per unit", "of it data", "all"), rows),
    )


def size(count: float) -> str:
    """Bytes as people read them."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"
