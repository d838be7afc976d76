"""Work with a project's code in a process of its own: threads as a worker has, memory that can be told."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from reuna.adapters.processes import ONE_THREAD, end_with_parent
from reuna.core.errors import RunFailed


async def aside(module: str, request: Mapping[str, Any], what: str) -> Any:
    """Run a module on a JSON request; the last line that it prints. Raises `RunFailed`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **ONE_THREAD},
        preexec_fn=end_with_parent,
    )
    try:
        out, err = await process.communicate(json.dumps(request).encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise RunFailed(f"{what} failed:\n{err.decode(errors='replace')[-800:]}")
    return json.loads(out.splitlines()[-1])
