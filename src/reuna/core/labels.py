"""Labels that come later: which answers they are of, and whether errors have risen since a release went live.

A label of one moment is of the newest window that was over then; one that goes from a first to a last moment
is of every window that lies within. Nothing after a label's moment is looked at, and it waits until no
further window can be of it. What it is of depends on it and on the windows alone, not on when it came.

>>> rule, errors = Rising(quiet_labels=1000), Errors()
>>> for number in range(200):
...     errors = judged(rule, errors, answer=1.0, label=1.0 if number < 150 else 0.0, classes=True)
>>> errors.labels, errors.wrong, errors.alarm
(200, 50, True)
"""

from __future__ import annotations

import math

import msgspec
from msgspec.structs import replace

from reuna.core.concept import PageHinkley, PageHinkleyState, step

FIRST = 50  #: distances of a release that say how far off an answer usually is
LEAST = 30  #: errors before the first alarm
RECENT = 30  #: the newest, of which the mean error is told
FAR = 0.9  #: an answer that is further off than so many of the first ones is a wrong one
RISE = 0.1  #: what the share of wrong answers may rise without being counted


class Label(msgspec.Struct, frozen=True, order=True):
    """What was true from a first to a last moment, ns since the epoch; the same twice: at one moment."""

    last_ns: int
    first_ns: int
    value: float


class Rising(msgspec.Struct, frozen=True):
    """``quiet_labels``: labels from one false alarm to the next, on average and at least."""

    quiet_labels: float

    @property
    def test(self) -> PageHinkley:
        """For errors from 0 to 1: by Hoeffding's bound on what adds up, see docs/reference/drift.md."""
        return PageHinkley(math.log(self.quiet_labels) / (8 * RISE), RISE, LEAST)


class Judging(msgspec.Struct, frozen=True):
    """How labels of a project are held against its answers. ``step_ns``: from one window to the next."""

    rule: Rising
    step_ns: int


class Errors(msgspec.Struct, frozen=True, omit_defaults=True):
    """Of one release: ``labels`` that its answers were held against, ``wrong`` of which are another class.

    ``recent``: the newest errors, 1 for a wrong class, else the distance. ``first``: the first distances,
    until ``far`` is known from them: beyond it an answer counts as wrong. ``level``: the test's sum as a
    share of what makes an alarm; ``usual``: the share of wrong answers before it rose.
    """

    labels: int = 0
    wrong: int = 0
    recent: tuple[float, ...] = ()
    first: tuple[float, ...] = ()
    far: float = 0.0
    state: PageHinkleyState = PageHinkleyState()
    level: float = 0.0
    usual: float = 0.0
    alarm: bool = False

    @property
    def mean(self) -> float:
        """Of the newest errors: the share that is wrong, or the mean distance."""
        return math.fsum(self.recent) / len(self.recent) if self.recent else 0.0


def judged(rule: Rising, before: Errors, answer: float, label: float, classes: bool) -> Errors:
    """The errors after one more answer was held against its label; both are finite.

    An alarm goes on until the newest errors are what they were before; another release has errors of its own.
    """
    error = float(answer != label) if classes else abs(answer - label)
    after = replace(
        before,
        labels=before.labels + 1,
        wrong=before.wrong + int(classes and error > 0),
        recent=(*before.recent, error)[-RECENT:],
    )
    if classes or len(before.first) == FIRST:
        return _looked(rule, after, error)
    first = (*before.first, error)
    far = sorted(first)[int(FAR * FIRST)] if len(first) == FIRST else 0.0
    return replace(after, first=first, far=far)


def _looked(rule: Rising, after: Errors, error: float) -> Errors:
    """The test goes on with an answer that is wrong, or not."""
    state, rose = step(rule.test, after.state, float(error > after.far))
    if rose:
        return replace(after, state=state, alarm=True, level=1.0)
    lowest = state.total == state.lowest
    usual = state.mean if lowest and not after.alarm else after.usual
    newest = sum(each > after.far for each in after.recent) / len(after.recent)
    alarm = after.alarm and newest > usual + RISE
    level = 1.0 if alarm else (state.total - state.lowest) / rule.test.threshold
    return replace(after, state=state, usual=usual, alarm=alarm, level=level)
