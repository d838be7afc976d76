"""The ledger of a real edge: countersigned by a real cloud, passed on to a real server, judged by an auditor."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from reuna.adapters.ledger_file import BESIDE, segments
from reuna.adapters.toml_file import read_toml
from reuna.adapters.trust_keys import read_key
from reuna.fleet.layout import Fleet, make_fleet, write_toml
from reuna.fleet.officer import amend, key_file
from reuna.fleet.ports import HOST
from reuna.fleet.supervise import Supervisor
from tests import commands

VERIFIER = Path(__file__).parents[2] / "src/reuna/adapters/ledger_verifier.py"


def reuna(*arguments: str, good: bool = True) -> str:
    done = commands.reuna("ledger", *arguments, cwd=Path.cwd())
    assert (done.returncode == 0) is good, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.system
@pytest.mark.timeout(90)
def test_an_edges_ledger_is_countersigned_passed_on_and_found_out_when_it_is_cut(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    fleet = make_fleet(tmp_path / "fleet", "mill", {"fog-1": {"press-1": tmp_path / "data"}})
    folder = fleet.folder / "press-1/state/ledger"
    for place in (*fleet.of("fog"), *fleet.of("edge")):
        write_toml(place.settings, {**read_toml(place.settings).values, "heads_s": 1.0})
    told = asyncio.run(lived(fleet, folder))
    cloud = fleet.folder / "cloud/cloud.toml"
    keys, heads = tmp_path / "keys", tmp_path / "heads"
    keys.write_text(reuna("keys", "--settings", str(cloud), "--node", "press-1"))
    heads.write_text(reuna("heads", "--settings", str(cloud), "--node", "press-1"))
    given = ("--keys", str(keys), "--heads", str(heads))
    said = reuna("verify", str(folder), *given)
    assert "none" not in said, said
    assert b"reuna@32473" in told and b" - head " in told
    assert b"spiffe" in told
    cut = tmp_path / "cut"
    shutil.copytree(folder, cut)
    first = segments(cut)[0]
    whole = first.read_bytes()
    first.write_bytes(whole[: 4 + int.from_bytes(whole[:4], "big")])
    assert "a head names a later record" in reuna("verify", str(cut), good=False)
    (cut / BESIDE).unlink()
    reuna("verify", str(cut))
    assert "a head names a later record" in reuna("verify", str(cut), *given, good=False)
    alone = subprocess.run(
        [sys.executable, "-I", str(VERIFIER), str(cut), *given], capture_output=True, text=True, timeout=60
    )
    assert alone.stderr.startswith("WRONG at record 1: cut")


async def lived(fleet: Fleet, folder: Path) -> bytes:
    """Start, until the ledger is countersigned and the server was told; what it was told."""
    told = bytearray()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                told.extend(data)
        finally:
            writer.close()

    server = await asyncio.start_server(take, HOST, 0)
    url = f"syslog+tcp://{HOST}:{server.sockets[0].getsockname()[1]}"
    officer = read_key(key_file(fleet.folder), None)
    policy = fleet.folder / "press-1/policy.toml"
    amend(policy, officer, "[code]", f'[ledger]\nheads_to = ["{url}"]\n\n[code]')
    supervisor = Supervisor(fleet)
    await supervisor.start()
    try:
        async with asyncio.timeout(60):
            while not ((folder / BESIDE).exists() and b"countersigned" in told):
                await asyncio.sleep(0.2)
    finally:
        await supervisor.stop()
        server.close()
    return bytes(told)
