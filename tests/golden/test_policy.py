"""Published bytes: what officers sign, and their signatures. Nodes in the field must accept them for years.

Regenerate on purpose with ``python -m tests.golden.test_policy`` after raising the format's number.
"""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from reuna.trust.policy import Policy, canonical, digest
from reuna.trust.policy_sign import Accepted, Floor, parse_signatures, sign, verify, write_signatures
from reuna.trust.requests import Request
from tests.unit.trust.site import NOW, SIGNERS, key, policy, update

GOLDEN = Path(__file__).with_name("policy-1.json")


def golden_text() -> str:
    signatures = tuple(sign(policy(), key(name)) for name in ("dpo", "ot"))
    return (
        json.dumps(
            {
                "canonical": canonical(policy()).decode(),
                "digest": digest(policy()),
                "policy.sig": write_signatures(signatures),
                "request": msgspec.json.encode(update()).decode(),
            },
            indent=1,
        )
        + "\n"
    )


def test_the_published_bytes_are_those_of_the_golden_file() -> None:
    assert golden_text() == GOLDEN.read_text(encoding="utf-8")


def test_golden_files_are_still_accepted() -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    found = msgspec.json.decode(golden["canonical"], type=Policy)
    signatures = parse_signatures(golden["policy.sig"], "policy.sig")
    verdict = verify(found, signatures, Floor("mill-3", SIGNERS), NOW)
    assert isinstance(verdict, Accepted)
    assert verdict.floor.digest == golden["digest"]
    assert msgspec.json.decode(golden["request"], type=Request) == update()


if __name__ == "__main__":
    GOLDEN.write_text(golden_text(), encoding="utf-8")
