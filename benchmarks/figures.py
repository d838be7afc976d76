"""What `docs/performance.md` shows of the results kept in `docs/figures`: lines of Markdown by the place's name. Pure
but for reading the files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers import table
from benchmarks.peers.cells import grids, middle, of, sizes

#: process -> what it does in a round
KINDS = {
    "edge worker": "makes the update",
    "edge main": "passes plan and update on",
    "edge egress": "policy, grid, ledger, spool, sends",
    "fog main": "receives, commits, adds up",
    "fog egress": "passes the sum up",
    "fog nats": "messages of the site",
    "cloud main": "receives, new model, journal, plan",
    "cloud nats": "messages of the fleet",
}


def blocks(folder: Path) -> dict[str, list[str]]:
    """Every place of the page and its lines."""
    peers, budget, curves = (_read(folder / f"{name}.json") for name in ("peers", "budget", "curves"))
    return {
        "circumstances": list(table.circumstances(peers)),
        "ratios": list(table.ratios(peers)),
        "memory": list(table.memory(peers)),
        "budget": list(cpu(peers["cells"])),
        "purposes": list(purposes(budget)),
        "curves": list(points(curves)),
    }


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def cpu(cells: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Milliseconds of CPU of a round by kind of process, beside the round by the clock and its limits."""
    by_size = {
        f"{table.short(params)} values, {nodes} nodes{grid}": of(cells, work, "reuna", params)
        for params, nodes in sizes(cells)
        for work, grid in grids(cells, params)
    }
    yield _row("process", "what it does", *by_size)
    yield "|---" * (2 + len(by_size)) + "|"
    for kind, does in KINDS.items():
        yield _row(kind, does, *(_ms(_middle_cpu(found, kind)) for found in by_size.values()))
    yield _row("**all**", "CPU of a round", *(_ms(_middle_cpu(found, "all")) for found in by_size.values()))
    for key, title in (
        ("median_s", "a round by the clock, median"),
        ("p90_s", "the same, 90 of 100"),
        ("limit_s", "limit: bytes over loopback, and their mean"),
        ("disk_limit_s", "limit: writing and fsync of what is durable"),
    ):
        yield _row("", title, *(_ms(_thousand(middle(found, key))) for found in by_size.values()))


def _middle_cpu(cells: Sequence[Mapping[str, Any]], kind: str) -> float | None:
    told = [{"told": (cell.get("told") or {}).get("cpu_ms_a_round")} for cell in cells]
    return middle(told, kind)


def _thousand(value: float | None) -> float | None:
    return None if value is None else 1000 * value


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:,.3g} ms" if value < 1000 else f"{value / 1000:,.3g} s"


def purposes(budget: Mapping[str, Any]) -> Iterator[str]:
    """Shares of what processes are at, a table for each size."""
    for size in budget["sizes"]:
        kinds = [kind for kind in KINDS if size["shares"].get(kind)]
        rows: dict[str, float] = {}
        for kind in kinds:
            for name, share in size["shares"][kind].items():
                rows[name] = rows.get(name, 0.0) + share
        yield f"{table.short(size['params'])} values, {size['nodes']} nodes:"
        yield ""
        yield _row("busy with", *kinds)
        yield "|---" * (1 + len(kinds)) + "|"
        for name in sorted(rows, key=lambda each: -rows[each]):
            yield _row(name, *(_share(size["shares"][kind].get(name)) for kind in kinds))
        yield ""
    yield _from(budget)


def _share(value: float | None) -> str:
    return f"{value:.0%}" if value and value >= 0.005 else ""


def points(curves: Mapping[str, Any]) -> Iterator[str]:
    """The points of the plots as tables."""
    for by, title in (("nodes", "nodes"), ("params", "values")):
        if by not in curves:
            continue
        yield _row(title, "a round", "coordinator: CPU", "coordinator: memory", "sent a round", "how")
        yield "|---" * 6 + "|"
        for point in curves[by]["points"]:
            yield _row(f"{point[by]:,}", *_point(point))
        yield ""
        yield _from(curves[by])
        yield ""


def _point(point: Mapping[str, Any]) -> tuple[str, ...]:
    if point["failed"]:
        return (f"*{point['failed']}*", "", "", "", "")
    return (
        table.seconds(point["round_s"]),
        table.seconds(point["coordinator_cpu_s"]) if point["coordinator_cpu_s"] is not None else "–",
        f"{point['coordinator_peak_mib']:,.0f} MiB",
        _bytes(point["sent_bytes"]),
        point["mode"],
    )


def _bytes(count: float) -> str:
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f} B"


def _from(result: Mapping[str, Any]) -> str:
    load = result["load_before"]
    busy = f" **Under load** ({load:.0f} before)." if load > table.BUSY else ""
    return f"{result['when'][:10]}, `{result['command']}`, commit `{result['commit']}`.{busy}"


def _row(*texts: str) -> str:
    return "| " + " | ".join(texts) + " |"
