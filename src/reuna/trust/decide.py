"""May this leave? A pure function of policy, what left before, and what is asked. No is the default.

A request is allowed when at least one rule of its kind allows it and nothing that bounds the
whole policy stands against it. So taking a rule away, or a name out of a list, never allows
more. When every rule refuses, the answer is of the rule that came nearest to allowing it.

    verdict = decide(policy, state, request)
    if isinstance(verdict, Allow):
        state = spend(state, request)  # and make that durable before the first byte leaves
"""

from __future__ import annotations

from reuna.trust.flow_checks import DAY_S, judge
from reuna.trust.policy import ANY, KINDS, PROTECTIONS, Policy, Window, day_number, day_of, rule_name
from reuna.trust.policy_sign import standing
from reuna.trust.requests import Allow, Deny, Reading, Request, State, Verdict, Wait, today

WEEK_S = 7 * DAY_S
MONDAY = 4 * DAY_S  #: 1970-01-05 was one
LARGEST = 2.0**63


def decide(policy: Policy, state: State, request: Request) -> Verdict:
    """May it leave? Never raises; whatever is not known counts against it."""
    refused = _in_force(policy, state, request.now) or _sound(request)
    if refused is not None:
        return refused
    verdict = _by_flows(policy, state, request)
    if isinstance(verdict, Deny):
        return verdict
    refused = _code(policy, request) or _size(policy, request)
    if refused is not None:
        return refused
    return _not_before(policy, state, request, verdict)


def decide_moment(policy: Policy, state: State, request: Request) -> Verdict:
    """May anything of that size leave at that time, whichever rule lets it? Never raises."""
    refused = _in_force(policy, state, request.now) or _sound(request) or _size(policy, request)
    return refused or _not_before(policy, state, request, Allow("limits"))


def _not_before(policy: Policy, state: State, request: Request, verdict: Verdict) -> Verdict:
    """The verdict, unless hours or the day's bytes stand against it."""
    later = [each for each in (_bytes(policy, state, request), _window(policy, request)) if each is not None]
    for each in later:
        if isinstance(each, Deny):
            return each
    waits = [each for each in (verdict, *later) if isinstance(each, Wait)]
    return max(waits, key=lambda wait: wait.until) if waits else verdict


def decide_reading(policy: Policy, state: State, reading: Reading) -> Allow | Deny:
    """May code read it? Never raises."""
    refused = _in_force(policy, state, reading.now)
    if refused is not None:
        return refused
    source = policy.sources.get(reading.source)
    rule = f"sources.{reading.source}"
    if source is None:
        return Deny("source", f"the policy has no source named {reading.source!r}", "sources")
    lacking = [] if ANY in source.columns else sorted(set(reading.columns) - set(source.columns))
    if lacking:
        return Deny("columns", f"the column {lacking[0]!r} of {reading.source} may not be read", rule)
    if source.purpose and reading.purpose not in source.purpose:
        return Deny(
            "purpose", f"{reading.source} may not be read for {reading.purpose or 'no purpose'!r}", rule
        )
    return Allow(rule)


# --- what bounds everything ----------------------------------------------------------------------


def decide_code(policy: Policy, state: State, digest: str, now: float, unsigned: str = "") -> Allow | Deny:
    """May a bundle run at this site? Never raises. Its sandbox is judged when it is known.

    Both must agree: the site's officers by the policy, and the fleet's code role. ``unsigned`` is why
    the latter does not, see `reuna.trust.targets.unsigned`.
    """
    request = Request("", "", 0, now, code=digest, sandbox=policy.code.min_sandbox_level)
    refused = _in_force(policy, state, now) or _code(policy, request)
    if refused is None and unsigned:
        return Deny("code-unsigned", f"the code {digest[:12]}… {unsigned}", "")
    return refused or Allow("code.allow")


def _in_force(policy: Policy, state: State, now: float) -> Deny | None:
    if state.stopped:
        return Deny("stopped", "the kill switch is on: nothing leaves until it is taken off", "kill_switch")
    if not state.valid:
        return Deny("no-policy", state.why or "no signed policy is in force", "")
    if not 0 <= now < 2.5e11:  # also when it is no number
        return Deny("malformed", "the time of the request cannot be", "")
    wrong = standing(policy, now)
    return Deny(wrong.reason, wrong.why, "valid") if wrong else None


def _sound(request: Request) -> Deny | None:
    numbers = {
        "bytes": request.bytes,
        "round": request.round,
        "cohort": request.cohort,
        "organisations": request.organisations,
        "samples": request.samples,
        "local_steps": request.local_steps,
        "params": request.params,
        "norm": request.norm,
        "values": request.values,
        "cell": request.cell,
        "epsilon": request.epsilon,
        "delta": request.delta,
    }
    for name, value in numbers.items():
        if value is not None and not 0 <= value <= LARGEST:
            return Deny("malformed", f"{name} is {value}, which cannot be", "")
    if request.protection not in PROTECTIONS:
        return Deny("malformed", f"{request.protection!r:.40} is no protection", "")
    return None


def _code(policy: Policy, request: Request) -> Deny | None:
    """Pushed code must be approved and have run in a strong enough sandbox."""
    if not request.code:
        return None
    named = f"the code {request.code[:12]}…"
    held = [number for number, entry in enumerate(policy.code.allow) if entry.digest == request.code]
    if not held and policy.code.new_code == "ask":
        return Deny("code-ask", f"{named} waits for the approval of this site's officers", "code.new_code")
    if not held:
        return Deny("code", f"{named} is not on this site's list", "code.new_code")
    if all(day_of(request.now) > day_number(policy.code.allow[number].until) for number in held):
        last = policy.code.allow[held[-1]].until
        return Deny(
            "code-expired", f"{named} was approved to the end of {last} UTC", f"code.allow[{held[-1] + 1}]"
        )
    if request.sandbox < policy.code.min_sandbox_level:
        least = policy.code.min_sandbox_level
        return Deny(
            "sandbox",
            f"{named} ran at sandbox level {request.sandbox}, at least {least} is asked for",
            "code.min_sandbox_level",
        )
    return None


def _size(policy: Policy, request: Request) -> Deny | None:
    limit = policy.limits.bytes_per_day
    if limit is not None and request.bytes > limit:
        return Deny(
            "size", f"{request.bytes} bytes are more than the {limit} of a whole day", "limits.bytes_per_day"
        )
    return None


def _bytes(policy: Policy, state: State, request: Request) -> Wait | None:
    limit, day = policy.limits.bytes_per_day, today(state, request)
    sent = sum(state.bytes.values()) if state.day == day else 0
    if limit is None or sent + request.bytes <= limit:
        return None
    why = f"{sent} of the {limit} bytes of this day have left already"
    return Wait(float((day + 1) * DAY_S), "bytes", why, "limits.bytes_per_day")


def _window(policy: Policy, request: Request) -> Wait | Deny | None:
    windows = policy.limits.windows
    if windows is None:
        return None
    if not windows:
        return Deny("window", "the policy names no hours in which anything may leave", "limits.windows")
    second = (request.now - MONDAY) % WEEK_S
    if any(is_inside(window, second) for window in windows):
        return None
    opening = min((start - second) % WEEK_S for window in windows for start, _ in spans(window))
    return Wait(request.now + opening, "window", "this is outside of the policy's hours", "limits.windows")


def spans(window: Window) -> list[tuple[int, int]]:
    """A window as (start, seconds) of each of its days, in seconds since Monday 00:00."""
    long = (window.end - window.start) % 1440 or 1440
    return [((day * 1440 + window.start) * 60, long * 60) for day in window.days]


def is_inside(window: Window, second: float) -> bool:
    """Whether a second of the week, counted from Monday 00:00, lies in a window."""
    return any((second - start) % WEEK_S < long for start, long in spans(window))


# --- rule by rule --------------------------------------------------------------------------------


def _by_flows(policy: Policy, state: State, request: Request) -> Verdict:
    """The first rule that allows; else the first that will; else the one that came nearest."""
    if request.kind == "raw":
        written = [rule_name(policy, n) for n, each in enumerate(policy.flows) if each.kind == "raw"]
        return Deny("raw", "rows of data never leave a site", written[0] if written else "")
    waits: list[Wait] = []
    refusals: list[tuple[int, Deny]] = []
    for position, rule in enumerate(policy.flows):
        if rule.kind != request.kind:
            continue
        name = rule_name(policy, position)
        passed, stop = judge(policy, state, rule, request)
        if stop is None:
            return Allow(name)
        if stop.until is not None:
            waits.append(Wait(stop.until, stop.reason, stop.why, name))
        else:
            refusals.append((passed, Deny(stop.reason, stop.why, name)))
    if waits:
        return min(waits, key=lambda wait: wait.until)
    if refusals:
        return max(refusals, key=lambda found: found[0])[1]
    said = KINDS.get(request.kind, "that kind is unknown")
    return Deny("kind", f"no rule lets {request.kind} leave ({said})", "")
