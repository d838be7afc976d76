"""The decisions of the loop, one module a stage, in this order:

    plan -> data -> train -> validate -> release -> deploy -> operate -> monitor -> plan

Each is pure: records in, records out; time, randomness and bytes are arguments. `STAGES` says
which place decides what today; a place's file that is named after a stage must stand there
(``tests/shape``). The cloud plans and validates inside its `train` and the run's session.
"""

#: stage -> the places that run it today
STAGES: dict[str, tuple[str, ...]] = {
    "plan": ("cloud",),
    "train": ("edge", "fog", "cloud"),
    "validate": ("cloud",),
}
