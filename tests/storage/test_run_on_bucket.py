"""A real fleet whose cloud keeps its models in a bucket, and whose store is killed in the middle of a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from reuna.adapters.object_store import open_bucket
from reuna.template import make_project
from tests.servers.s3 import SECRET, S3Server

pytestmark = [pytest.mark.system, pytest.mark.timeout(170)]
PLAIN = ["--set", "run.local=false", "--set", "run.centralised=false"]
URL = "s3://models/run"


def wait_until(done: Callable[[], bool], running: subprocess.Popen[str]) -> None:
    ends = time.monotonic() + 90
    while not done():
        assert running.poll() is None, running.communicate()[1]
        assert time.monotonic() < ends
        time.sleep(0.05)


def test_a_round_waits_for_the_store_and_goes_on_when_it_is_back(tmp_path: Path, s3: S3Server) -> None:
    make_project(tmp_path / "pumps", sample=True)
    env = {**os.environ, "REUNA_CLOUD_STORE": URL}
    bucket, runs = open_bucket(URL), tmp_path / "pumps" / "runs"

    def said() -> str:
        return "".join(path.read_text(errors="replace") for path in runs.rglob("place.log"))

    command = [sys.executable, "-m", "reuna.cli", "run", "--rounds", "40", "--json", *PLAIN]
    with subprocess.Popen(
        command, cwd=tmp_path / "pumps", env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        wait_until(lambda: len(bucket.names()) >= 3, running)  # bundle, first model, that of a round
        s3.stop()
        wait_until(lambda: "R304 s3://models/run" in said(), running)
        waiting = said()
        s3.start()
        out, err = running.communicate(timeout=140)
    assert running.returncode == 0, err
    assert "; waiting. See that AWS_ENDPOINT_URL can be reached" in waiting
    found = json.loads(out)
    assert found["model_digest"] in bucket.names()
    told = [event["fields"]["round"] for event in found["timeline"] if event["what"] == "round"]
    assert told == list(range(1, 41)), "each is told once"
    assert SECRET not in out + err + waiting
