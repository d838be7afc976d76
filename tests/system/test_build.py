"""A build is run by real processes, where neither repository nor folder are, and gives the same bits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from reuna.fleet.bill import KEPT
from reuna.fleet.built import provenance_of
from reuna.fleet.result import ResultFile, SourceLine
from reuna.template import make_project
from tests.repositories import commit, git

pytestmark = [pytest.mark.system, pytest.mark.timeout(170)]


def reuna(*words: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "reuna.cli", *words], cwd=cwd, capture_output=True, text=True, timeout=80
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_build_trains_to_the_same_model_as_its_commit(tmp_path: Path) -> None:
    project, elsewhere = tmp_path / "pumps", tmp_path / "elsewhere"
    make_project(project, sample=True)
    settings = (project / "reuna.toml").read_text().replace("rounds = 20", "rounds = 2")
    (project / "reuna.toml").write_text(settings + "\n[run]\nlocal = false\ncentralised = false\n")
    git(project, "init", "--quiet", ".")
    made = commit(project, {})
    built = json.loads(reuna("build", "--json", "--output", str(elsewhere / "x.tar"), cwd=project))
    first = msgspec.json.decode(reuna("run", "--json", cwd=project), type=ResultFile)
    (project / "data").rename(elsewhere / "data")
    second = msgspec.json.decode(
        reuna("run", "--build", "x.tar", "--data", "data", "--json", cwd=elsewhere), type=ResultFile
    )
    assert first.source == SourceLine(built["code"], made)
    assert second.source == SourceLine(built["code"], made, build=built["digest"])
    assert second.asked
    assert second.asked.bundle == built["code"]
    assert first.model_digest == second.model_digest
    prints = [{each.fingerprint for each in result.data} for result in (first, second)]
    assert prints[0].isdisjoint(prints[1]), "each fleet's nodes have keys of their own"
    for result in (first, second):
        assert all(each.samples and each.files and each.rows for each in result.data)
        assert result.approvals
        assert [each.by for each in result.approvals.code] == [["officer"]] * len(result.data)
        assert result.approvals.code_role
    run = elsewhere / "runs" / second.run
    assert (run / KEPT).read_bytes() == (elsewhere / "x.tar").read_bytes()
    assert provenance_of(run / KEPT).read_bytes() == (elsewhere / "x.tar.intoto.json").read_bytes()
    shown = json.loads(reuna("lineage", "--project", str(project), "--json", cwd=elsewhere))
    assert shown["source"]["commit"] == made
    assert shown["sites"][0]["nodes"][0]["data"]["fingerprint"] == second.data[0].fingerprint
    found = json.loads(reuna("where", "--component", "numpy", "--json", cwd=elsewhere))
    assert [each["digest"] for each in found] == [built["digest"]]
