"""A finished run's model as ONNX, made by the project's own learner and compared with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from reuna.adapters.files import replace_file
from reuna.adapters.onnx_export import Predictor, check_parity, sample_input
from reuna.adapters.project import blame_project, load_entry
from reuna.core.errors import Corrupted, LearnerError, ProjectError
from reuna.core.ports import Learner, Tensors
from reuna.core.project import ProjectSettings
from reuna.core.tensors import layout_of, unpack
from reuna.fleet.open_project import open_settings
from reuna.wire import digest_bytes

MODEL = "model.safetensors"
ROWS = 256  #: on which the graph is compared with the learner
SEED = 1


@dataclass(frozen=True)
class Exported:
    """The file written; ``difference``: the largest from the learner's answers, None without a `predict`."""

    file: Path
    size: int
    rows: int
    difference: float | None


def export_run(
    run: Path, result: Mapping[str, Any], project: Path, file: Path, sets: Sequence[str] = ()
) -> Exported:
    """Write the run's model to ``file``; nothing is written when the graph and the learner disagree.

    Raises as `graph_of`.
    """
    graph, difference = graph_of(run, result, project, open_settings(project, list(sets)))
    file.parent.mkdir(parents=True, exist_ok=True)
    replace_file(file, graph, 0o644)
    return Exported(file, len(graph), ROWS if difference is not None else 0, difference)


def graph_of(
    run: Path, result: Mapping[str, Any], project: Path, settings: ProjectSettings
) -> tuple[bytes, float | None]:
    """The run's model as ONNX, and its largest difference from the learner; None without a `predict`.

    Raises `ProjectError` for another project than the run's, `LearnerError` for code that makes another
    model by now or an export that is not what the learner answers, `Corrupted`, `ExtraMissing`.
    """
    if settings.name != result["project"]:
        raise ProjectError(
            f"{project.absolute()} is the project {settings.name!r}, the run was of {result['project']!r}",
            "Name the project's folder with --project.",
        )
    entry, model = load_entry(project, settings.entry), read_model(run, result)
    with blame_project(project, "making the learner"):
        learner = entry.learner(settings.settings)
        same = layout_of(learner.init(settings.seed)) == layout_of(model)
    if not same:
        raise LearnerError(
            f"the code in {project.absolute()} makes a model of other names or shapes than the run's",
            "Bring the code back that the run had, and give its --set settings again.",
        )
    with blame_project(project, "exporting"):
        graph = learner.export(model)
        return graph, _compared(graph, learner, model)


def read_model(run: Path, result: Mapping[str, Any]) -> Tensors:
    """The model that the run kept. Raises `Corrupted` when it is not the one that its result names."""
    file = run / MODEL
    try:
        data = file.read_bytes()
    except OSError as error:
        raise Corrupted(f"{file} cannot be read: {error.strerror}", "Run it again.") from error
    if digest_bytes(data) != result["model_digest"]:
        raise Corrupted(f"{file} is not the model that its result.json names", "Run it again.")
    return unpack(data)


def _compared(graph: bytes, learner: Learner, model: Tensors) -> float | None:
    """On rows drawn at random, for the run's own lie at the nodes. Raises `LearnerError`."""
    if not hasattr(learner, "predict"):
        return None
    return check_parity(graph, cast("Predictor", learner), model, sample_input(graph, ROWS, SEED))
