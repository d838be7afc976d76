"""How often DBOS goes to a thread for the steps of a run, and that it journals them and nothing besides."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dbos import DBOS

from reuna.adapters.journal_dbos import DbosHost
from reuna.core.errors import Refused
from reuna.core.ports import Journal


async def test_each_step_is_journalled_and_what_it_asks_of_dbos_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hops, told, plain = list[Any](), list[int](), asyncio.to_thread

    async def counted(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        hops.append(function)
        return await plain(function, *args, **kwargs)

    async def asks() -> list[str]:
        found = [run for run, *_ in await host.runs(5, "kind")]
        hops.clear()
        return found

    async def refuse() -> None:
        told.append(len(hops))
        raise Refused("closed", "no")

    async def body(journal: Journal, _spec: str) -> list[list[str]]:
        found = [await journal.step(name, asks) for name in ("one", "two", "three")]
        with pytest.raises(Refused):
            await journal.step("four", refuse)
        return found

    host = DbosHost(tmp_path)
    host.register("kind", body)
    await host.start()
    try:
        monkeypatch.setattr(asyncio, "to_thread", counted)
        await host.submit("kind", "run", "")
        assert await host.result("run") == [["run"]] * 3
        steps = await DBOS.list_workflow_steps_async("run")
    finally:
        await host.stop()
    assert told == [1], "it is told how the step before ended, and not asked whether this one is known"
    assert [step["function_name"] for step in steps] == ["one", "two", "three", "four"]
    assert [step["error"] is None for step in steps] == [True, True, True, False]
