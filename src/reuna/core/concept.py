"""Whether errors have risen since a model came into use: the test of Page and Hinkley, step by step.

    state = PageHinkleyState()
    state, alarm = step(PageHinkley(threshold=5), state, error)      # for each label that arrives

Pure: a rule, a state and an error in, the next state out; so it goes on after a restart from a state that
was kept. It looks for a rise of the mean, as of an absolute error or of 1 for each wrong answer.

>>> def alarms(errors: list[float]) -> list[int]:
...     state, found = PageHinkleyState(), []
...     for number, error in enumerate(errors):
...         state, alarm = step(PageHinkley(threshold=5), state, error)
...         found += [number] if alarm else []
...     return found
>>> alarms([0.0] * 100), alarms([0.0] * 100 + [1.0] * 10)
([], [105])
"""

from __future__ import annotations

import math

import msgspec


class PageHinkley(msgspec.Struct, frozen=True):
    """The rule (Page 1954; Hinkley 1971; in the form of Gama et al. 2014).

    ``delta``: what the mean may rise without being counted, in the error's unit; ``threshold``: how much
    has to add up, in the same unit; ``least``: errors before the first alarm; ``memory``: factor on the
    sum for each error, 1 forgets nothing.
    """

    threshold: float
    delta: float = 0.005
    least: int = 30
    memory: float = 1.0


class PageHinkleyState(msgspec.Struct, frozen=True):
    """What was seen since the start or the last alarm: how many errors, their mean, the sum, its lowest."""

    seen: int = 0
    mean: float = 0.0
    total: float = 0.0
    lowest: float = math.inf


def step(rule: PageHinkley, state: PageHinkleyState, error: float) -> tuple[PageHinkleyState, bool]:
    """The state after one more error, and whether it raises an alarm; after one, all begins anew.

    Raises `ValueError` for an error that is not finite: it would silence the test for good.
    """
    if not math.isfinite(error):
        raise ValueError(f"an error is {error}, expected a finite number")
    seen = state.seen + 1
    mean = state.mean + (error - state.mean) / seen
    total = rule.memory * state.total + (error - mean - rule.delta)
    lowest = min(state.lowest, total)
    if seen >= rule.least and total - lowest > rule.threshold:
        return PageHinkleyState(), True
    return PageHinkleyState(seen, mean, total, lowest), False
