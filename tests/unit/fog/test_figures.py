"""What a gateway tells of itself."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from reuna.core.figures import Worked, judged
from reuna.fog.figures import collect


async def test_a_gateway_tells_rounds_edges_refusals_and_its_spool(tmp_path: Path) -> None:
    (tmp_path / "bodies").mkdir()
    (tmp_path / "bodies" / "one").write_bytes(bytes(100))
    (tmp_path / "spool.db").write_bytes(bytes(20))
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    combiner = SimpleNamespace(rounds=SimpleNamespace(worked=Worked()), present=lambda: ("e1",))
    combiner.rounds.worked.count("train", 2.0)
    intake = SimpleNamespace(refused={"e1": {"late": 2, "size": 1}, "e2": {"late": 1}})
    told = judged(await collect(combiner, intake, frozenset({"e1", "e2"}), tmp_path))  # type: ignore[arg-type]
    assert {(each.name, *each.labels): each.value for each in told} == {
        ("reuna_rounds_total", "train"): 1,
        ("reuna_round_seconds_total", "train"): 2.0,
        ("reuna_edges",): 2,
        ("reuna_edges_present",): 1,
        ("reuna_spool_bytes",): 120,
        ("reuna_refused_total", "late"): 3,
        ("reuna_refused_total", "size"): 1,
    }
