"""Markdown of a result file: ratios, memory, and under which circumstances. Pure.

The same text is printed at the end of a run, kept beside the file, and stands in the documentation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.peers.cells import ROBUST_PARAMS, SYSTEMS, grids, middle, of, sizes, why_not

NAMES = {"reuna": "Reuna", "flower": "Flower", "nvflare": "NVFlare"}
FOLDS = {
    "median": "median",
    "trimmed_mean": "trimmed mean",
    "krum": "Krum",
    "multi_krum": "Multi-Krum",
}
BUSY = 1.0  #: load of the machine before a run above which figures are not those of a quiet one
Cells = Sequence[Mapping[str, Any]]


def markdown(result: Mapping[str, Any]) -> str:
    """All tables of a result."""
    parts = (circumstances, ratios, memory)
    return "\n".join(line for part in parts for line in (*part(result), "")).rstrip() + "\n"


def circumstances(result: Mapping[str, Any]) -> Iterator[str]:
    """Machine, versions, day, command."""
    machine, versions = result["machine"], result["versions"]
    named = ", ".join(f"{NAMES.get(name, name)} {version}" for name, version in versions.items())
    yield (
        f"{result['when'][:10]}, {machine['cores']} cores ({machine['cpu']}), {machine['memory_gib']} GiB, "
        f"loopback, {machine['system']}; {named}. `{result['command']}`, commit `{result['commit']}`."
    )
    load = max((cell["load"] for cell in result["cells"]), default=0.0)
    if result["load_before"] > BUSY:
        yield ""
        yield (
            f"**Under load**: other programs ran beside (load {result['load_before']:.1f} before, up to {load:.1f}). "
            "These figures are not those of a quiet machine."
        )


def ratios(result: Mapping[str, Any]) -> Iterator[str]:
    """Seconds of each system, and by how many times they differ."""
    cells, who = result["cells"], _present(result["cells"])
    peers = [name for name in who if name != "reuna"]
    yield _row(
        "work",
        "limit",
        *(NAMES[name] for name in who),
        "Reuna ÷ limit",
        *(f"{NAMES[p]} ÷ Reuna" for p in peers),
    )
    yield "|---" * (3 + len(who) + len(peers)) + "|"
    for title, key, limit, found, is_rate in _works(cells, who):
        ours = middle(found.get("reuna", []), key)
        shown = [_value(found[name], key, is_rate) for name in who]
        times = [_ratio(middle(found[peer], key), ours, is_rate) for peer in peers]
        yield _row(title, _number(limit, is_rate), *shown, _ratio(ours, limit, is_rate), *times)


def _works(
    cells: Cells, who: Sequence[str]
) -> Iterator[tuple[str, str, float | None, dict[str, Cells], bool]]:
    """Title, key of the figure, the limit, measurements by system, whether more is better."""
    found: dict[str, Cells]
    for params, nodes in sizes(cells):
        for work, grid in grids(cells, params):
            found = {name: of(cells, work, name, params) for name in who}
            limit = middle(found.get("reuna", []), "limit_s")
            yield f"round, {short(params)} values, {nodes} nodes{grid}", "median_s", limit, found, False
    if any(cell["work"] == "simulate" for cell in cells):
        found = {name: of(cells, "simulate", name) for name in who}
        limit = middle(found.get("reuna", []), "numpy_clients_per_s")
        yield "simulated clients a second", "clients_per_s", limit, found, True
    if any(cell["work"] == "robust" for cell in cells):
        found = {name: of(cells, "robust", name) for name in who}
        nodes = next(cell["nodes"] for cell in cells if cell["work"] == "robust")
        limit = middle(found.get("reuna", []), "limit_s")
        for key, title in FOLDS.items():
            yield f"{title}, {nodes} × {short(ROBUST_PARAMS)}", f"{key}_s", limit, found, False


def memory(result: Mapping[str, Any]) -> Iterator[str]:
    """Memory of the coordinating process and of an idle client, and how many processes there were."""
    cells = result["cells"]
    who = _present(cells)
    if not any(cell["work"] == "round" for cell in cells):
        return
    yield _row("what", *(NAMES[name] for name in who))
    yield "|---" * (1 + len(who)) + "|"
    for params, nodes in sizes(cells):
        found = {name: of(cells, "round", name, params) for name in who}
        shown = [_mib(middle(found[name], _PEAK[name])) for name in who]
        yield _row(f"largest server process, {short(params)} values, {nodes} nodes", *shown)
    for key, title, unit in (
        ("idle", "idle client, all its processes (PSS)", " MiB"),
        ("processes", "processes, most at once", ""),
    ):
        values = [
            middle(of(cells, "round", name), _IDLE[name] if key == "idle" else "processes_seen")
            for name in who
        ]
        yield _row(title, *(f"{value:.0f}{unit}" if value is not None else "–" for value in values))
    yield _row("how it ran", *(_mode(of(cells, "round", name)) for name in who))


_PEAK = {"reuna": "cloud_peak_mib", "flower": "server_peak_mib", "nvflare": "server_peak_mib"}
_IDLE = {"reuna": "edge_idle_pss_mib", "flower": "client_idle_pss_mib", "nvflare": "client_idle_pss_mib"}


def _mode(cells: Cells) -> str:
    for cell in cells:
        told = cell.get("told") or {}
        if "topology" in told:
            return (
                f"{told['topology']}; mutual TLS, durable"
                if told["durable"]
                else f"{told['topology']}; mutual TLS"
            )
        if "mode" in told:
            return str(told["mode"])
    return "–"


def _present(cells: Cells) -> list[str]:
    """Systems that have a cell, ours first."""
    return [name for name in SYSTEMS if any(cell["who"] == name for cell in cells)]


def _value(cells: Cells, key: str, is_rate: bool) -> str:
    value = middle(cells, key)
    if value is not None:
        return _number(value, is_rate)
    reason = why_not(cells)
    return f"*{reason.replace('|', '/')}*" if reason else "–"


def _number(value: float | None, is_rate: bool) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if is_rate else seconds(value)


def _ratio(value: float | None, other: float | None, is_rate: bool) -> str:
    """By how many times ``value`` is worse than ``other``."""
    if not value or not other:
        return "–"
    times = other / value if is_rate else value / other
    return f"{times:,.0f}×" if times >= 10 else f"{times:.1f}×"


def _mib(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f} MiB"


def _row(*texts: str) -> str:
    return "| " + " | ".join(texts) + " |"


def seconds(value: float) -> str:
    """Three digits with the unit that suits."""
    return f"{1000 * value:.3g} ms" if value < 1 else f"{value:.3g} s"


def short(count: int) -> str:
    """10 k, 1 M."""
    for size, sign in ((1_000_000, "M"), (1000, "k")):
        if count >= size:
            return f"{count / size:g} {sign}"
    return str(count)
