"""Work with a project's code in a process of its own: threads as a worker has, memory that can be told."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from reuna.adapters.processes import ONE_THREAD, end_with_parent
from reuna.core.errors import RunFailed

LONGEST_LINE = 1 << 26  #: bytes of a line that a process of ours may say
TAIL = 800  #: characters of what a process that failed said last


async def aside(module: str, request: Mapping[str, Any], what: str) -> Any:
    """Run a module on a JSON request; the last line that it prints. Raises `RunFailed`."""
    async with started(sys.executable, "-m", module) as process:
        out, err = await process.communicate(json.dumps(request).encode())
    if process.returncode != 0:
        raise RunFailed(f"{what} failed:\n{err.decode(errors='replace')[-TAIL:]}")
    return json.loads(out.splitlines()[-1])


async def lines_of(module: str, request: Mapping[str, Any], what: str) -> AsyncGenerator[Any]:
    """Run a module on a JSON request; each line that it prints, as it comes. Raises `RunFailed`.

    Close it (`contextlib.aclosing`) when you leave before the end: that ends the process.
    """
    async with started(sys.executable, "-m", module) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        last = asyncio.create_task(_last_of(process.stderr))
        process.stdin.write(json.dumps(request).encode())
        process.stdin.close()
        async for line in process.stdout:
            yield json.loads(line)
        said, status = await last, await process.wait()
    if status != 0:
        raise RunFailed(f"{what} failed:\n{said}")


async def _last_of(stream: asyncio.StreamReader) -> str:
    kept = b""
    while read := await stream.read(1 << 16):
        kept = (kept + read)[-TAIL:]
    return kept.decode(errors="replace")


@asynccontextmanager
async def started(*command: str, cwd: Path | None = None) -> AsyncIterator[Process]:
    """A process, ended with all that it started when whoever waits for it gives up."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        cwd=cwd,
        limit=LONGEST_LINE,
        env={**os.environ, **ONE_THREAD},
        preexec_fn=end_with_parent,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # `end_with_parent` made the group
            await process.wait()
