"""A second opinion: what a policy allows, written from its meaning and not from our code.

It imports nothing of the decision. It says True (it may leave now), False (it may not), or a time
before which it may not.
"""

from __future__ import annotations

import datetime as dt
import math

STRENGTH = {"clear": 0, "split": 1, "secagg": 2}
START = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def reference(policy, state, ask):  # type: ignore[no-untyped-def]
    at = START + dt.timedelta(seconds=ask.now)
    today = max((at - START).days, state.day)
    midnight = (today + 1) * 86_400
    same_day = state.day == today
    amounts = [ask.bytes, ask.round, ask.cohort, ask.samples, ask.local_steps, ask.values]
    amounts += [
        x
        for x in (ask.organisations, ask.params, ask.norm, ask.cell, ask.epsilon, ask.delta)
        if x is not None
    ]
    if any(math.isnan(x) or x < 0 for x in amounts):
        return False
    if state.stopped or not state.valid or not policy.valid.first <= at.date() <= policy.valid.last:
        return False
    answers = [one_rule(policy, state, ask, rule, same_day, midnight) for rule in policy.flows]
    answers = [a for a in answers if a is not False]
    if not answers or ask.kind == "raw":
        return False
    waits = [] if True in answers else [min(answers)]
    if ask.code:
        good = [e for e in policy.code.allow if e.digest == ask.code and at.date() <= e.until]
        if not good or ask.sandbox < policy.code.min_sandbox_level:
            return False
    cap = policy.limits.bytes_per_day
    if cap is not None:
        if ask.bytes > cap:
            return False
        if (sum(state.bytes.values()) if same_day else 0) + ask.bytes > cap:
            waits.append(midnight)
    if policy.limits.windows is not None:
        if not policy.limits.windows:
            return False
        minute = 0  # walk minute by minute to the first one that is open
        while not any(is_open(w, at + dt.timedelta(minutes=minute)) for w in policy.limits.windows):
            minute += 1
        if minute:
            waits.append(ask.now + 60 * minute)
    return max(waits) if waits else True


def in_force(policy, state, now):  # type: ignore[no-untyped-def]
    day = (START + dt.timedelta(seconds=now)).date()
    return state.valid and not state.stopped and policy.valid.first <= day <= policy.valid.last


def may_read(policy, state, ask):  # type: ignore[no-untyped-def]
    """Every column by itself: some entry of its dataset has to name it, or name all."""
    if not in_force(policy, state, ask.now) or ask.source not in policy.sources:
        return False
    columns, purpose = policy.sources[ask.source].columns, policy.sources[ask.source].purpose
    return (not purpose or ask.purpose in purpose) and all(
        "*" in columns or c in columns for c in ask.columns
    )


def may_run(policy, state, digest, now, unsigned):  # type: ignore[no-untyped-def]
    day = (START + dt.timedelta(seconds=now)).date()
    approved = any(entry.digest == digest and entry.until >= day for entry in policy.code.allow)
    return in_force(policy, state, now) and (approved or not digest) and not unsigned


def is_open(window, at):  # type: ignore[no-untyped-def]
    minute, day = at.hour * 60 + at.minute, at.weekday()
    if window.start < window.end:
        return day in window.days and window.start <= minute < window.end
    evening = day in window.days and minute >= window.start
    return evening or ((day - 1) % 7 in window.days and minute < window.end)


def one_rule(policy, state, ask, rule, same_day, midnight):  # type: ignore[no-untyped-def]
    round_ = f"{ask.kind} {ask.run} {ask.round}"
    tensors, dp, infinite = rule.tensors, rule.dp, float("inf")
    must = [
        rule.kind == ask.kind,
        ask.to in {policy.recipients[name] for name in rule.to if name in policy.recipients},
        STRENGTH[ask.protection] >= STRENGTH[rule.protection],
        ask.organisations is not None or (rule.min_cohort <= 1 and rule.min_organisations == 0),
        ask.cohort >= rule.min_cohort
        and (ask.organisations or 0) >= rule.min_organisations
        and ask.samples >= rule.min_samples,
        ask.local_steps >= rule.min_local_steps,
        (-1 if ask.cell is None else ask.cell) >= rule.min_cell or not rule.min_cell,
        not tensors.schema or tensors.schema == ask.schema,
        tensors.dtypes is None or ask.dtype in tensors.dtypes,
        tensors.max_params is None or (infinite if ask.params is None else ask.params) <= tensors.max_params,
        tensors.max_norm is None or (infinite if ask.norm is None else ask.norm) <= tensors.max_norm,
        rule.names is None or "*" in rule.names or not set(ask.metrics) - set(rule.names),
        rule.max_values_per_round is None
        or state.values.get(round_, 0) + max(ask.values, len(ask.metrics)) <= rule.max_values_per_round,
        rule.max_rounds_per_day != 0,
    ]
    wait = True
    if dp:
        known = ask.epsilon is not None and ask.delta is not None and ask.epsilon_unit == dp.unit
        must.append(known and ask.epsilon <= dp.max_epsilon_round and ask.delta <= dp.delta)
        if known and state.epsilon.get(dp.unit, 0) + ask.epsilon > dp.max_epsilon_total + 1e-9:
            must.append(dp.on_exhausted == "pause")
            wait = (policy.valid.last - START.date()).days * 86_400 + 86_400
    begun = state.rounds.get(ask.kind, 0) if same_day else 0
    room = rule.max_rounds_per_day
    if wait is True and room is not None and begun + (round_ not in state.values) > room:
        wait = midnight
    return wait if all(must) else False
