"""The decisions of the loop, one module a stage, in this order:

    plan -> data -> train -> validate -> release -> deploy -> operate -> monitor -> trigger -> plan

Each is pure: records in, records out; time, randomness and bytes are arguments. `STAGES` says
which place runs what today, and each place has a file named after each stage it runs
(``tests/shape`` holds both ways).
"""

#: stage -> the places that run it today
STAGES: dict[str, tuple[str, ...]] = {
    "plan": ("cloud",),
    "train": ("edge", "fog", "cloud"),
    "validate": ("cloud",),
    "release": ("cloud",),  # a run of a build is judged there; it is released where the catalogue is
    "deploy": (),  # where the desired state is applied
    "rollout": (),  # the second half of deploy, carried out by the cloud's `rollouts`
    "operate": ("edge",),
    "monitor": ("edge", "cloud"),
    "trigger": ("cloud",),
}
