"""``reuna predict``: what a release answers for recordings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reuna.cli.output import as_json
from reuna.cli.runs import Json
from reuna.fleet.ending import until_done

if TYPE_CHECKING:
    from reuna.core.fallback import Decision
    from reuna.fleet.predict import Predicted

MOVED = 0.25  #: of the population stability index, which is told
FEW = 200  #: values of a signal below which nothing is said of its drift


def predict(
    release: Annotated[Path, typer.Argument(metavar="RELEASE", help="File of a release.")],
    data: Annotated[
        Path,
        typer.Option("--data", help="Folder of recordings; or a node's folder, whose `test` is predicted."),
    ],
    node: Annotated[
        Path | None,
        typer.Option("--node", help="The node's own folder, with the tables that it trained on."),
    ] = None,
    level: Annotated[
        int, typer.Option("--level", min=0, max=3, help="Lowest level of the sandbox; see `reuna sandbox`.")
    ] = 0,
    check_windows: Annotated[
        bool,
        typer.Option(
            "--check-windows",
            help="First check that features of a window are the same bits when it is read alone.",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Answer every window of recordings by a release: its code in the sandbox, its graph by onnxruntime.

    Sensors that fail are treated by the release's [fallback]. Exit status 1: no window could be answered.
    """
    from reuna.fleet.predict import Asked, as_dict
    from reuna.fleet.predict import predict as carry_out

    found = until_done(carry_out(Asked(release, data, node, level, check_windows)))
    if json:
        as_json(as_dict(found))
    else:
        _print(found)
    if not found.latency_ms:
        raise typer.Exit(1)


def _print(found: Predicted) -> None:
    """A line for each recording, then latency, and what has moved."""
    from collections import Counter

    about, answers = found.release.manifest.about, found.answers
    typer.echo(f"{about.project} {about.version}, sandbox level {found.level}")
    said: list[Counter[str]] = [Counter() for _ in answers.recordings]
    for each, decided in zip(answers.windows, found.decided, strict=True):
        said[each.recording][_word(each.output, decided)] += 1
    for name, rows, words in zip(answers.recordings, answers.rows, said, strict=True):
        typer.echo(f"{name}: {rows} rows; " + (_counted(words) or "no windows"))
    states = ", ".join(f"{number} {state}" for state, number in sorted(found.states.items()))
    typer.echo(f"windows: {states or 'none'}")
    if found.latency_ms:
        typer.echo("latency: " + ", ".join(f"{k} {v:.3f} ms" for k, v in found.latency_ms.items()))
    for moved in found.inputs:
        if moved.psi is not None and moved.psi >= MOVED and moved.rows >= FEW:
            typer.echo(f"apart from the training of all nodes: {moved.signal}, PSI {moved.psi:.2f}")


def _word(output: list[float], decided: Decision) -> str:
    """An answer for the summary: a class by its number, any other number not at all."""
    if decided.why:
        return f"safe ({decided.why})"
    return f"class {decided.answer:g}" if len(output) > 1 else "a number"


def _counted(words: dict[str, int]) -> str:
    most = sorted(words.items(), key=lambda item: (-item[1], item[0]))
    rest = len(most) - 6
    more = [f"and {rest} other reasons"] if rest > 0 else []
    return ", ".join([*(f"{number} x {word}" for word, number in most[:6]), *more])
