"""The policy as its officers handle it: start one, sign it, look at it, try it on what was asked before.

policy.toml    what the site allows, with its comments
policy.sig     the officers' signatures over what it says
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from reuna.adapters.files import replace_file
from reuna.adapters.ledger_file import entries
from reuna.adapters.policy_store import read_policy, read_signatures
from reuna.core.errors import SettingsError
from reuna.core.subjects import is_name
from reuna.trust.explain import conditions
from reuna.trust.policy import CodeEntry, FlowRule, Policy, digest, rule_name
from reuna.trust.policy_keys import DIGEST, is_word
from reuna.trust.policy_sign import Signature, is_signed, sign, standing, write_signatures
from reuna.trust.policy_text import parse
from reuna.trust.publish import PrivateKey
from reuna.trust.rehearse import asked, recorded, rehearse
from reuna.trust.requests import Allow, Request, Wait

PRESETS = ("research", "company", "companies", "local")
DAYS = 180  #: that a new policy holds


def starter(
    preset: str,
    site: str,
    today: date,
    *,
    fleet: str = "fleet",
    fog: str = "",
    over: str = "",
    signers: Mapping[str, str] | None = None,
    threshold: int | None = None,
    days: int = DAYS,
    code: Iterable[CodeEntry] = (),
    template: str = "",
) -> str:
    """The text of a first policy. ``fog``: the site's fog, named like the site without it; ``over``: the fog
    that it stands under, in place of the cloud.

    ``signers``: name -> public key; without any it is a draft that no node accepts. ``threshold``:
    two of several signers without it. ``template``: a text in place of a preset's, with the same words
    to be replaced (my-site, my-fleet, my-fog, 2026-01-01, 2026-12-31). Raises `SettingsError`.
    """
    if not template and preset not in PRESETS:
        raise SettingsError(f"{preset!r} is no preset", f"Use one of {', '.join(PRESETS)}.")
    wrong = [name for name in (site, fleet, fog or site, over or site) if not is_name(name)]
    if wrong:
        raise SettingsError(f"{wrong[0]!r} is no name", "Use a-z, 0-9 and -, at most 63.")
    keys = dict(signers or {})
    text = template or _preset(preset)
    lines = [f'"{name}" = "{key}"' for name, key in keys.items() if is_word(name) and not DIGEST(key)]
    if len(lines) != len(keys):
        raise SettingsError(
            "a signer is a name and a public key", "Give NAME=KEY as `reuna policy key` says it."
        )
    needed = threshold if threshold is not None else min(2, max(1, len(keys)))
    given = {
        "threshold = 1\n": f"threshold = {needed}\n",
        "[signers.keys]\n": "\n".join(("[signers.keys]", *lines, "")),
        "2026-01-01": str(today),
        "2026-12-31": str(today + timedelta(days=days)),
        "my-site": site,
        "my-fleet": fleet,
        "my-fog": fog or site,
    }
    text = re.sub("|".join(map(re.escape, given)), lambda found: given[found[0]], text)
    text = _under(text, over, fleet) if over else text
    text += "".join(code_entry(entry) for entry in code)
    parse(text, "the new policy")
    return text


def _under(text: str, over: str, fleet: str) -> str:
    """What may go to the cloud goes to the fog over the site's own instead. Raises `SettingsError`."""
    there = f'over = "spiffe://{over}.{fleet}/gateway/{over}" # the fog over this site\'s own'
    found, times = re.subn(r"^cloud = .*$", there, text, flags=re.MULTILINE)
    if not times:
        raise SettingsError(
            "the template has no recipient called cloud, in whose place the fog over this one could stand",
            "Name the recipient in the policy by hand; leave --over out.",
        )
    return found.replace('"cloud"', '"over"')


def _preset(name: str) -> str:
    return resources.files("reuna.fleet").joinpath("policies", f"{name}.toml").read_text(encoding="utf-8")


def code_entry(entry: CodeEntry) -> str:
    """A bundle that may run, as text at the end of a policy."""
    by = ", ".join(f'"{name}"' for name in entry.approved_by)
    return f'\n[[code.allow]]\ndigest = "{entry.digest}"\napproved_by = [{by}]\nuntil = {entry.until}\n'


class Signed(msgspec.Struct, frozen=True):
    """After a signature: names that have signed, how many must, what was dropped, whether it is named."""

    signed_by: tuple[str, ...]
    threshold: int
    dropped: int
    named: bool


def sign_file(file: Path, key: PrivateKey) -> Signed:
    """Put a key's signature beside a policy file; those of an older text are dropped.

    A key that the policy does not name may sign too: it counts when the policy before named it.
    Raises `SettingsError`, `DiskFull`.
    """
    policy = read_policy(file)
    new, old = sign(policy, key), read_signatures(file)
    kept = [each for each in old if is_signed(policy, each)]
    others = [each for each in kept if each.key != new.key]
    replace_file(file.with_suffix(".sig"), write_signatures((*others, new)).encode(), 0o644)
    names = _signed_by(policy, (*others, new))
    return Signed(
        names, policy.signers.threshold, len(old) - len(kept), new.key in policy.signers.keys.values()
    )


def overview(file: Path, now: float) -> dict[str, Any]:
    """A policy's standing, signatures and rules: plain values, for people and JSON.

    Raises `SettingsError`.
    """
    policy, signatures = read_policy(file), read_signatures(file)
    wrong = standing(policy, now)
    names = _signed_by(policy, signatures)
    return {
        "site": policy.site,
        "serial": policy.serial,
        "digest": digest(policy),
        "from": str(policy.valid.first),
        "until": str(policy.valid.last),
        "in_its_days": wrong is None,
        "problem": wrong.why if wrong else "",
        "threshold": policy.signers.threshold,
        "signers": sorted(policy.signers.keys),
        "signed_by": list(names),
        "signed": bool(policy.signers.keys) and len(names) >= policy.signers.threshold,
        "of_another_text": sum(not is_signed(policy, each) for each in signatures),
        "kill_switch": policy.kill_switch,
        "flows": [_row(policy, number, rule) for number, rule in enumerate(policy.flows)],
        "code": [
            {"digest": each.digest, "until": str(each.until), "approved_by": list(each.approved_by)}
            for each in policy.code.allow
        ],
    }


def simulate(policy: Policy, ledger: Path) -> dict[str, Any]:
    """What the policy says to each request of a ledger: counts, and every one that may not leave.

    ``ledger``: its folder, its export, or lines of requests. Raises `SettingsError`, `Corrupted`.
    """
    if ledger.is_dir():
        return _rehearsed(policy, "record", recorded(entries(ledger)))
    try:
        with ledger.open("rb") as file:
            counted, found = asked(file, ledger.name)
            return _rehearsed(policy, counted, found)
    except OSError as error:
        raise SettingsError(
            f"{ledger} cannot be read: {error.strerror}", "Name a ledger's folder or an export of it."
        ) from error


def _rehearsed(policy: Policy, counted: str, found: Iterable[tuple[int, Request]]) -> dict[str, Any]:
    counts = {"allowed": 0, "refused": 0, "later": 0}
    reasons: Counter[str] = Counter()
    stopped = []
    for each in rehearse(policy, found):
        verdict, request = each.verdict, each.request
        if isinstance(verdict, Allow):
            counts["allowed"] += 1
            continue
        counts["later" if isinstance(verdict, Wait) else "refused"] += 1
        reasons[verdict.reason] += 1
        stopped.append(
            {
                counted: each.line,
                "now": request.now,
                "kind": request.kind,
                "to": request.to,
                "bytes": request.bytes,
                "later": isinstance(verdict, Wait),
                "reason": verdict.reason,
                "why": verdict.why,
                "rule": verdict.rule,
            }
        )
    return {**counts, "reasons": dict(reasons.most_common()), "stopped": stopped}


def _row(policy: Policy, number: int, rule: FlowRule) -> dict[str, Any]:
    return {"rule": rule_name(policy, number), "to": list(rule.to), "conditions": conditions(rule)}


def _signed_by(policy: Policy, signatures: Iterable[Signature]) -> tuple[str, ...]:
    """Signers of the policy that have signed this very text, sorted."""
    keys = {each.key for each in signatures if is_signed(policy, each)}
    return tuple(sorted(name for name, key in policy.signers.keys.items() if key in keys))
