"""Releases as versions of registered models.

MLflow counts versions itself, so a release is known by its digest, in the tag ``reuna.release``. What a
version needs is there before the version is, and what says that it was there comes last: a call that
was cut is simply made again.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reuna.adapters.mlflow_tracking.names import key
from reuna.core.tracking import Registered

RELEASE = "reuna.release"
ONNX = "model.onnx"
LOADED = "MLmodel"  #: what MLflow reads to load a model
_GONE, _THERE = "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS"


def register(client: Any, run: str, release: Registered) -> str:
    """Make a version of a release, with its files among the run's artifacts. ``run``: MLflow's own id."""
    model, held = key((release.model,)), f"{RELEASE}.{release.version:04d}"
    found = _version(client, model, release.digest)
    there = client.get_run(run)
    if found is None and there.data.tags.get(held) == release.digest:
        return "deleted"
    if found is None:
        folder = f"release-{release.version:04d}"
        _keep(client, run, folder, release)
        _model(client, model)
        tags = {RELEASE: release.digest, **release.tags}
        source = f"{there.info.artifact_uri}/{folder}"
        client.create_model_version(
            model, source, run, tags=tags, description=release.text, await_creation_for=0
        )
    if there.data.tags.get(held) != release.digest:
        client.set_tag(run, held, release.digest)
    return "sent" if found is None else "unchanged"


def point(client: Any, model: str, aliases: Mapping[str, str]) -> None:
    """Set, move and remove aliases; a digest that no version has is as none."""
    from mlflow.exceptions import MlflowException

    name = key((model,))
    try:
        there = dict(client.get_registered_model(name).aliases)
    except MlflowException as error:
        if error.error_code == _GONE:  # nothing of it was ever sent, or somebody deleted it
            return
        raise
    for alias, digest in aliases.items():
        version = _version(client, name, digest) if digest else None
        if version is None and alias in there:
            client.delete_registered_model_alias(name, alias)
        elif version is not None and str(there.get(alias)) != version:
            client.set_registered_model_alias(name, alias, version)


def _version(client: Any, model: str, digest: str) -> str | None:
    """MLflow's number of the version with that digest, the oldest if two writers made one each."""
    found = client.search_model_versions(f"name = '{model}' and tags.`{RELEASE}` = '{digest}'")
    return min((str(each.version) for each in found), key=int, default=None)


def _model(client: Any, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != _THERE:
            raise


def _keep(client: Any, run: str, folder: str, release: Registered) -> None:
    files = {**release.files, LOADED: _loaded(run)} if ONNX in release.files else release.files
    with tempfile.TemporaryDirectory() as place:
        for name, data in files.items():
            (Path(place) / name).write_bytes(data)
        client.log_artifacts(run, place, folder)


def _loaded(run: str) -> bytes:
    """MLflow's own description, so that its ``onnx`` and ``pyfunc`` load the model; JSON is YAML."""
    flavors = {
        "onnx": {"data": ONNX, "providers": ["CPUExecutionProvider"]},
        "python_function": {"loader_module": "mlflow.onnx", "data": ONNX},
    }
    return json.dumps({"flavors": flavors, "run_id": run}, indent=1).encode()
