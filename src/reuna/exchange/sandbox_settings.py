"""How a project's code is confined where it runs: settings of an edge, and of a fog whose releases answer."""

from __future__ import annotations

from typing import Any

from reuna.adapters.sandbox import HIGHEST, SandboxLimits
from reuna.core.settings import Option, between

LIMITS = SandboxLimits()

SANDBOX: tuple[Option, ...] = (
    Option(
        "sandbox.min_level",
        int,
        HIGHEST,
        "lowest level of the sandbox that a project's code may run in; `reuna sandbox` shows what is reached",
        check=between(0, HIGHEST),
    ),
    Option(
        "sandbox.memory_mib",
        int,
        LIMITS.memory_mib,
        "address space of a worker",
        "MiB",
        between(256, 1 << 24),
    ),
    Option(
        "sandbox.file_mib",
        int,
        LIMITS.file_mib,
        "largest file a worker may write",
        "MiB",
        between(1, 1 << 24),
    ),
    Option(
        "sandbox.processes", int, LIMITS.processes, "threads a worker may have", check=between(1, 1 << 16)
    ),
)


def sandbox_limits(settings: dict[str, Any]) -> SandboxLimits:
    """How much a worker may take, from the settings of a place that has `SANDBOX` among its own."""
    return SandboxLimits(
        memory_mib=settings["sandbox.memory_mib"],
        file_mib=settings["sandbox.file_mib"],
        processes=settings["sandbox.processes"],
    )
