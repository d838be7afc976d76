"""A model that is small comes inside the plan itself."""

from __future__ import annotations

from reuna.adapters.files import HeldBlob
from reuna.core.records import Plan


def model_inside(plan: Plan) -> HeldBlob | None:
    """The model that came inside a plan, which needs no file; None where it is fetched by its digest."""
    return None if plan.inline is None else HeldBlob(plan.inline, plan.model)
