"""What every test gets: one thread of linear algebra, and examples that do not depend on the day."""

from __future__ import annotations

import os

# Before numpy is first imported: two test processes on two cores, and the same bits on every machine.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from hypothesis import HealthCheck, settings  # noqa: E402 - the threads are fixed first

# Shared machines stall: a slow example says nothing about the code, so there is no deadline.
settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# CI runs the same examples each time; a developer's runs look for new ones.
settings.register_profile("ci", parent=settings.get_profile("here"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")
