"""The words of a difference: what a data officer reads before signing."""

from __future__ import annotations

from datetime import date
from typing import Any

import msgspec
import pytest

from reuna.trust.compare import compare
from reuna.trust.policy import (
    Budget,
    Code,
    CodeEntry,
    FlowRule,
    LedgerSettings,
    Limits,
    Policy,
    Signers,
    Source,
    Tensors,
    Validity,
    Window,
)
from tests.unit.trust.site import CLOUD, CODE, policy, public

replace = msgspec.structs.replace


def rule(number: int, **other: Any) -> Policy:
    flows = list(policy().flows)
    flows[number] = replace(flows[number], **other)
    return policy(flows=tuple(flows))


def update(**tensors: Any) -> Policy:
    return rule(0, tensors=replace(policy().flows[0].tensors, **tensors))


FOG_UPDATE = "model_update to fog (spiffe://line-4/gateway/north): "
#: A looser policy, and what it says it allows now.
LOOSER = [
    (rule(0, protection="split"), FOG_UPDATE + "protected by split instead of secagg"),
    (rule(0, min_cohort=3), FOG_UPDATE + "nodes in the sum: at least 3 instead of 5"),
    (rule(0, min_samples=0), FOG_UPDATE + "rows behind it: at least 0 instead of 2000"),
    (rule(0, max_rounds_per_day=None), FOG_UPDATE + "rounds a day without a bound instead of 24"),
    (rule(0, dp=None), FOG_UPDATE + "without differential privacy"),
    (rule(0, dp=Budget("row", 8.0, 0.2, 1e-6)), FOG_UPDATE + "ε in all at most 8 instead of 4"),
    (rule(0, dp=Budget("row", 4.0, 0.2, 1e-6)), FOG_UPDATE + "ε protects one row instead of one asset-day"),
    (update(max_norm=2.0), FOG_UPDATE + "length (L2) at most 2.0 instead of 1.0"),
    (update(schema=""), FOG_UPDATE + "tensors of any schema"),
    (update(dtypes=("float32", "float64")), FOG_UPDATE + "also the number types float64"),
    (rule(1, names=("loss", "mae", "auc")), f"metric to cloud ({CLOUD}): also the metrics auc"),
    (rule(1, names=("*",)), f"metric to cloud ({CLOUD}): any metrics, not only loss, mae"),
    (rule(2, to=("fog",)), "log to fog (spiffe://line-4/gateway/north)"),
    (
        policy(flows=(*policy().flows, FlowRule("statistic", ("cloud",), "secagg", min_cell=10))),
        f"statistic to cloud ({CLOUD}); masked, so that only the sum over all who take part can be seen "
        "(secagg); at least 10 rows are behind the smallest count",
    ),
    (policy(recipients={**policy().recipients, "fog": CLOUD}), f"presence to fog ({CLOUD})"),
    (policy(valid=Validity(date(2026, 10, 1), date(2027, 1, 31))), "from 2026-10-01 on, not only from 2026-11-01"),
    (policy(valid=Validity(date(2026, 11, 1), date(2027, 2, 1))), "to the end of 2027-02-01, not only of 2027-01-31"),
    (policy(limits=replace(policy().limits, bytes_per_day=2**20)), "1 MiB a day instead of 1000000 bytes"),
    (
        policy(limits=replace(policy().limits, windows=(Window((5,), 0, 1440),))),
        "at other times: Sat 00:00-24:00 instead of every day 06:00-22:00",
    ),
    (policy(limits=Limits(1_000_000)), "at other times: at any time instead of every day 06:00-22:00"),
    (
        policy(code=replace(policy().code, allow=(CodeEntry(CODE, ("dpo",), date(2027, 1, 31)),))),
        f"results of the code {CODE[:12]}… to the end of 2027-01-31, not only of 2026-12-31",
    ),
    (policy(code=Code(policy().code.allow, "ask", 1)), "results of code that ran at sandbox level 1 instead of 3"),
    (
        policy(sources={"press": Source(("*",), ("maintenance",))}),
        "code reads any columns of press, not only rms, temp",
    ),
    (
        policy(sources={**policy().sources, "staff": Source(("name",))}),
        "code reads name of staff",
    ),
    (policy(kill_switch=""), "sending while the file /etc/reuna/STOP exists"),
]  # fmt: skip


@pytest.mark.parametrize(("looser", "said"), LOOSER)
def test_what_is_loosened_is_said_both_ways_round(looser: Policy, said: str) -> None:
    assert said in compare(policy(), looser).now
    assert said in compare(looser, policy()).no_longer


def test_a_tighter_policy_allows_nothing_new() -> None:
    tighter = replace(rule(0, min_cohort=9, tensors=Tensors("ab" * 32, (), 1, 0.5)), limits=Limits(1, ()))
    assert compare(policy(), tighter).now == ()


def test_whoever_signs_sees_a_change_of_signers() -> None:
    new = policy(serial=18, signers=Signers(1, {"dpo": public("dpo"), "new": public("new")}))
    other = compare(policy(), new).other
    assert "1 signatures are needed instead of 2" in other
    assert f"new ({public('new')[:12]}…) signs from now on" in other
    assert f"ot ({public('ot')[:12]}…) signs no more" in other


def test_what_else_changed_is_said() -> None:
    new = policy(
        site="mill-4",
        kill_switch="/run/stop",
        code=replace(policy().code, new_code="deny"),
        ledger=LedgerSettings(("syslog://site",)),
    )
    assert compare(policy(), new).other == (
        "it is of another site: mill-4 instead of mill-3",
        "its serial 17 must be raised above 17, or no node accepts it",
        "the kill switch is /run/stop instead of /etc/reuna/STOP",
        "unknown code: deny instead of ask",
        "the settings of the ledger changed",
    )
