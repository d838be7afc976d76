"""What one policy allows and another does not: a comparison of what they mean, not of their texts.

Moving a rule, renaming a recipient or changing a comment changes nothing here. A rule of the
new policy is news when no rule of the old one allows at least as much to the same identity.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import msgspec

from reuna.trust.decide import is_inside
from reuna.trust.explain import conditions, size_text, window_text
from reuna.trust.policy import ANY, PROTECTIONS, FlowRule, Limits, Policy, digest

WEEK_MINUTES = 7 * 1440


class Difference(msgspec.Struct, frozen=True):
    """Sentences: what is allowed now, what is no longer, and what else is other than before."""

    now: tuple[str, ...]
    no_longer: tuple[str, ...]
    other: tuple[str, ...]


def compare(old: Policy, new: Policy) -> Difference:
    """What changes when ``new`` follows ``old``."""
    return Difference(tuple(_more(old, new)), tuple(_more(new, old)), tuple(_other(old, new)))


def _more(old: Policy, new: Policy) -> Iterator[str]:
    """What ``new`` allows and ``old`` does not."""
    if new.valid.first < old.valid.first:
        yield f"from {new.valid.first} on, not only from {old.valid.first}"
    if new.valid.last > old.valid.last:
        yield f"to the end of {new.valid.last}, not only of {old.valid.last}"
    for rule in new.flows:
        for name in rule.to:
            yield from _more_of_rule(old, rule, name, new.recipients.get(name, ""))
    yield from _more_of_limits(old.limits, new.limits)
    yield from _more_code(old, new)
    yield from _more_sources(old, new)
    if old.kill_switch and not new.kill_switch:
        yield f"sending while the file {old.kill_switch} exists"


def _more_of_rule(old: Policy, rule: FlowRule, name: str, identity: str) -> Iterator[str]:
    """The rule for one recipient, against the old rule that comes nearest to it."""
    if not identity or rule.kind == "raw":
        return
    what = f"{rule.kind} to {name} ({identity})"
    before = [
        each
        for each in old.flows
        if each.kind == rule.kind and any(old.recipients.get(to) == identity for to in each.to)
    ]
    if not before:
        yield "; ".join((what, *conditions(rule)))
        return
    loosened = min((loosened_by(each, rule) for each in before), key=len)
    for change in loosened:
        yield f"{what}: {change}"


def loosened_by(old: FlowRule, new: FlowRule) -> list[str]:
    """Where ``new`` allows more than ``old``, for rules of one kind and recipient."""
    found = []
    if PROTECTIONS.index(new.protection) < PROTECTIONS.index(old.protection):
        found.append(f"protected by {new.protection} instead of {old.protection}")
    for field, said in _FEWEST.items():
        before, after = getattr(old, field), getattr(new, field)
        if after < before:
            found.append(f"{said} at least {after} instead of {before}")
    for said, before, after in _bounds(old, new):
        if before is not None and (after is None or after > before):
            found.append(
                f"{said} {'without a bound' if after is None else f'at most {after}'} instead of {before}"
            )
    if old.tensors.schema and old.tensors.schema != new.tensors.schema:
        found.append(
            f"tensors of {f'the schema {new.tensors.schema[:12]}…' if new.tensors.schema else 'any schema'}"
        )
    found += _added("number types", old.tensors.dtypes, new.tensors.dtypes)
    found += _added("metrics", old.names, new.names)
    return found + _less_private(old, new)


_FEWEST = {
    "min_cohort": "nodes in the sum:",
    "min_organisations": "organisations in the sum:",
    "min_samples": "rows behind it:",
    "min_local_steps": "steps of training behind it:",
    "min_cell": "rows behind the smallest count:",
}


def _bounds(old: FlowRule, new: FlowRule) -> Iterator[tuple[str, float | None, float | None]]:
    yield "rounds a day", old.max_rounds_per_day, new.max_rounds_per_day
    yield "numbers in a round", old.max_values_per_round, new.max_values_per_round
    yield "numbers in an update", old.tensors.max_params, new.tensors.max_params
    yield "length (L2)", old.tensors.max_norm, new.tensors.max_norm


def _added(what: str, old: tuple[str, ...] | None, new: tuple[str, ...] | None) -> list[str]:
    """What a list has that the old one had not; None and `ANY` are all there is."""
    if old is None or ANY in old:
        return []
    if new is None or ANY in new:
        return [f"any {what}, not only {', '.join(old) or 'none'}"]
    more = sorted(set(new) - set(old))
    return [f"also the {what} {', '.join(more)}"] if more else []


def _less_private(old: FlowRule, new: FlowRule) -> list[str]:
    before, after = old.dp, new.dp
    if before is None:
        return []
    if after is None:
        return ["without differential privacy"]
    found = []
    if after.unit != before.unit:
        found.append(f"ε protects one {after.unit} instead of one {before.unit}")
    for said, was, is_now in (
        ("ε in all", before.max_epsilon_total, after.max_epsilon_total),
        ("ε an update", before.max_epsilon_round, after.max_epsilon_round),
        ("δ", before.delta, after.delta),
    ):
        if is_now > was:
            found.append(f"{said} at most {is_now:g} instead of {was:g}")
    return found


def _more_of_limits(old: Limits, new: Limits) -> Iterator[str]:
    was, is_now = old.bytes_per_day, new.bytes_per_day
    if was is not None and (is_now is None or is_now > was):
        yield f"{'any size' if is_now is None else size_text(is_now)} a day instead of {size_text(was)}"
    if old.windows is not None and minutes(new) - minutes(old):
        hours = "at any time" if new.windows is None else ", ".join(map(window_text, new.windows))
        yield f"at other times: {hours} instead of {', '.join(map(window_text, old.windows)) or 'never'}"


def minutes(limits: Limits) -> frozenset[int]:
    """Minutes of the week, from Monday 00:00 UTC, in which something may leave."""
    every = range(WEEK_MINUTES)
    if limits.windows is None:
        return frozenset(every)
    return frozenset(each for each in every if any(is_inside(window, each * 60) for window in limits.windows))


def _more_code(old: Policy, new: Policy) -> Iterator[str]:
    before: dict[str, date] = {}
    for entry in old.code.allow:
        before[entry.digest] = max(entry.until, before.get(entry.digest, entry.until))
    for entry in new.code.allow:
        last = before.get(entry.digest)
        if last is None or entry.until > last:
            only = "" if last is None else f", not only of {last}"
            yield f"results of the code {entry.digest[:12]}… to the end of {entry.until}{only}"
    least, was = new.code.min_sandbox_level, old.code.min_sandbox_level
    if least < was:
        yield f"results of code that ran at sandbox level {least} instead of {was}"


def _more_sources(old: Policy, new: Policy) -> Iterator[str]:
    for name, source in new.sources.items():
        before = old.sources.get(name)
        if before is None:
            yield f"code reads {', '.join(source.columns)} of {name}"
            continue
        for change in _added(f"columns of {name}", before.columns, source.columns):
            yield f"code reads {change}"
        for change in _added("purposes", before.purpose or None, source.purpose or None):
            yield f"code reads {name} for {change}"


def _other(old: Policy, new: Policy) -> Iterator[str]:
    """What neither allows nor forbids, but whoever signs should see."""
    if new.site != old.site:
        yield f"it is of another site: {new.site} instead of {old.site}"
    if new.serial <= old.serial and digest(new) != digest(old):
        yield f"its serial {new.serial} must be raised above {old.serial}, or no node accepts it"
    if new.signers.threshold != old.signers.threshold:
        yield f"{new.signers.threshold} signatures are needed instead of {old.signers.threshold}"
    gone = sorted(set(old.signers.keys.items()) - set(new.signers.keys.items()))
    come = sorted(set(new.signers.keys.items()) - set(old.signers.keys.items()))
    yield from (f"{name} ({key[:12]}…) signs no more" for name, key in gone)
    yield from (f"{name} ({key[:12]}…) signs from now on" for name, key in come)
    if new.kill_switch != old.kill_switch and new.kill_switch:
        yield f"the kill switch is {new.kill_switch} instead of {old.kill_switch or 'none'}"
    if new.code.new_code != old.code.new_code:
        yield f"unknown code: {new.code.new_code} instead of {old.code.new_code}"
    if new.ledger != old.ledger:
        yield "the settings of the ledger changed"
