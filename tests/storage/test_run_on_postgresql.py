"""A real fleet whose cloud keeps its tables in PostgreSQL, which is killed in the middle of a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest

from reuna.template import make_project
from tests.servers.postgresql import PASSWORD, PostgresqlServer

pytestmark = [pytest.mark.system, pytest.mark.timeout(170)]
PLAIN = ["--set", "run.local=false", "--set", "run.centralised=false"]


def rounds(server: PostgresqlServer) -> int:
    query = "SELECT count(*) FROM dbos.operation_outputs WHERE function_name LIKE 'round %'"
    try:
        return int(server.sql("reuna", query)[0][0])
    except psycopg.errors.UndefinedTable:
        return 0


def test_a_run_goes_on_to_the_same_bits_when_its_server_was_killed_and_came_back(
    tmp_path: Path, postgresql: PostgresqlServer
) -> None:
    make_project(tmp_path / "pumps", sample=True)
    env = {**os.environ, "REUNA_CLOUD_DATABASE": postgresql.url()}
    command = [sys.executable, "-m", "reuna.cli", "run", "--rounds", "6", "--json", *PLAIN]
    with subprocess.Popen(
        command, cwd=tmp_path / "pumps", env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        ends = time.monotonic() + 90
        while rounds(postgresql) < 2:
            assert running.poll() is None, running.communicate()[1]
            assert time.monotonic() < ends
            time.sleep(0.05)
        postgresql.stop()
        postgresql.start()
        assert rounds(postgresql) < 6, "it was killed in the middle"
        out, err = running.communicate(timeout=120)
    assert running.returncode == 0, err
    found = json.loads(out)
    del env["REUNA_CLOUD_DATABASE"]
    plain = subprocess.run(command, cwd=tmp_path / "pumps", env=env, capture_output=True, text=True)
    assert found["model_digest"] == json.loads(plain.stdout)["model_digest"]
    assert PASSWORD not in out + err
    assert rounds(postgresql) == 6
    told = [event for event in found["timeline"] if event["what"] == "round"]
    assert sorted(event["fields"]["round"] for event in told) == list(range(1, 7)), "each is told once"
    logs = "".join(path.read_text() for path in (tmp_path / "pumps" / "runs").rglob("*.log"))
    assert PASSWORD not in logs
