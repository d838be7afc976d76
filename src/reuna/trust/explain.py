"""What a policy says, in sentences for a person who does not program."""

from __future__ import annotations

from collections.abc import Iterator

from reuna.trust.policy import ANY, KINDS, FlowRule, Policy, Window, rule_name
from reuna.trust.policy_text import DAYS, UNITS

PROTECTED = {
    "clear": "the recipient sees it as it is",
    "split": "split between two parties, so that neither sees it alone (split) or masked (secagg)",
    "secagg": "masked, so that only the sum over all who take part can be seen (secagg)",
}


def explain(policy: Policy) -> list[str]:
    """The whole policy, line by line."""
    lines = [
        f"Policy {policy.serial} of {policy.site}, {_days(policy)}.",
        _signing(policy),
        "",
        "What may leave:",
    ]
    open_rules = [number for number, rule in enumerate(policy.flows) if rule.to and rule.kind != "raw"]
    for number in open_rules:
        rule = policy.flows[number]
        lines.append(f"  {rule_name(policy, number)}: {KINDS[rule.kind]}")
        lines.append(f"    to {recipients(policy, rule)}")
        lines += [f"    - {condition}" for condition in conditions(rule)]
        lines += [f"    ! always refused by this version of Reuna: {why}" for why in unmet(rule)]
    lines += [] if open_rules else ["  nothing"]
    lines += ["", "What never leaves:"]
    lines += [f"  {kind}: {KINDS[kind]}" for kind in closed_kinds(policy)]
    return [*lines, "", "For all of it:", *(f"  - {line}" for line in _overall(policy))]


def _days(policy: Policy) -> str:
    return f"from {policy.valid.first} to the end of {policy.valid.last} (UTC)"


def closed_kinds(policy: Policy) -> list[str]:
    """Kinds that no rule lets leave to anybody."""
    let = {rule.kind for rule in policy.flows if rule.to} - {"raw"}
    return [kind for kind in KINDS if kind not in let]


def recipients(policy: Policy, rule: FlowRule) -> str:
    """Names and identities of a rule's recipients."""
    return ", ".join(f"{name} ({policy.recipients.get(name, 'unknown')})" for name in rule.to)


def conditions(rule: FlowRule) -> list[str]:
    """What must hold for one rule, each a short sentence part."""
    tensors = rule.tensors
    found = [
        PROTECTED[rule.protection] if rule.kind in ("model_update", "metric", "statistic") else "",
        f"the sum is over at least {rule.min_cohort} nodes" if rule.min_cohort > 1 else "",
        f"it is over at least {rule.min_organisations} organisations" if rule.min_organisations > 1 else "",
        f"at least {rule.min_samples} rows are behind it, as the code that trained says"
        if rule.min_samples
        else "",
        f"at least {rule.min_local_steps} steps of training are behind it, as the cloud's plan asks for"
        if rule.min_local_steps
        else "",
        f"only tensors of the schema {tensors.schema[:12]}…" if tensors.schema else "",
        f"only numbers of type {_list(tensors.dtypes)}" if tensors.dtypes is not None else "",
        f"at most {tensors.max_params} numbers" if tensors.max_params is not None else "",
        f"its length (L2) is at most {tensors.max_norm:g}, of a sum that of the mean"
        if tensors.max_norm is not None
        else "",
        _names(rule),
        f"at least {rule.min_cell} rows are behind the smallest count" if rule.min_cell else "",
        f"at most {rule.max_values_per_round} numbers in a round"
        if rule.max_values_per_round is not None
        else "",
        f"at most {rule.max_rounds_per_day} rounds a day" if rule.max_rounds_per_day is not None else "",
        *_privacy(rule),
    ]
    return [each for each in found if each]


def unmet(rule: FlowRule) -> list[str]:
    """What a rule asks for and nothing in this version states, so that it lets nothing leave."""
    found = [
        f"nothing is protected by {rule.protection} yet" if rule.protection != "clear" else "",
        "nothing says yet how many rows are behind the smallest count (min_cell)"
        if rule.min_cell and rule.kind != "statistic"
        else "",
        "no training states an ε yet (dp)" if rule.dp is not None else "",
    ]
    return [each for each in found if each]


def window_text(window: Window) -> str:
    """A window as the file writes it."""
    days = " ".join(DAYS[day] for day in window.days) if len(window.days) < len(DAYS) else "every day"
    start, end = (f"{minutes // 60:02}:{minutes % 60:02}" for minutes in (window.start, window.end))
    return f"{days} {start}-{end}"


def size_text(size: int) -> str:
    """Bytes as a person writes them, without rounding."""
    for unit in ("GiB", "MiB", "KiB"):
        if size and size % UNITS[unit] == 0:
            return f"{size // UNITS[unit]} {unit}"
    return f"{size} bytes"


def _signing(policy: Policy) -> str:
    keys = policy.signers.keys
    if not keys:
        return "It names no signer yet: a draft, which no node accepts."
    return (
        f"It and the next one need the signatures of {policy.signers.threshold} of {', '.join(sorted(keys))}."
    )


def _names(rule: FlowRule) -> str:
    if rule.names is None:
        return ""
    what = "signals" if rule.kind == "window" else "metrics"
    return f"{what} of any name" if ANY in rule.names else f"only the {what} {_list(rule.names)}"


def _privacy(rule: FlowRule) -> Iterator[str]:
    budget = rule.dp
    if budget is not None:
        yield (
            f"with differential privacy that protects one {budget.unit}: ε at most "
            f"{budget.max_epsilon_round:g} an update and {budget.max_epsilon_total:g} in all, "
            f"δ at most {budget.delta:g}"
        )
        yield {
            "block": "when the ε is spent, updates are refused",
            "pause": "when the ε is spent, updates wait for the next policy",
        }[budget.on_exhausted]


def _overall(policy: Policy) -> Iterator[str]:
    limits, code = policy.limits, policy.code
    if limits.bytes_per_day is not None:
        yield f"at most {size_text(limits.bytes_per_day)} a day (UTC)"
    if limits.windows is not None:
        yield f"only at these times (UTC): {_list(tuple(map(window_text, limits.windows)))}"
    yield (
        f"nothing leaves while the file {policy.kill_switch} exists"
        if policy.kill_switch
        else "no kill switch"
    )
    for entry in code.allow:
        by = ", ".join(entry.approved_by)
        yield f"code {entry.digest[:12]}… may run to the end of {entry.until}, approved by {by}"
    yield {
        "ask": "other pushed code does not run before an officer approved it",
        "deny": "other pushed code does not run",
    }[code.new_code]
    if code.min_sandbox_level:
        yield f"pushed code runs in a sandbox of level {code.min_sandbox_level} or more"
    if not policy.sources:
        yield "code may read nothing: no source is named, so nothing is trained here"
    for name, source in policy.sources.items():
        columns = "all columns" if ANY in source.columns else _list(source.columns)
        purpose = f" for {_list(source.purpose)}" if source.purpose else ""
        yield f"code may read {columns} of {name}{purpose}"


def _list(words: tuple[str, ...] | None) -> str:
    return ", ".join(words or ()) or "none"
