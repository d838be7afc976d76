"""Published bytes: signed plans and the metadata of a fleet. Nodes in the field must read them for years.

Regenerate on purpose with ``python -m tests.golden.test_trust`` after raising the format's number.
"""

from __future__ import annotations

import json
from pathlib import Path

from reuna.trust.gate import plan_gate
from reuna.trust.metadata import begin, complete, update
from reuna.trust.plans import About, Floor, PlanSigner, sign_plan, verify_plan
from reuna.trust.publish import key_of, public_of
from reuna.trust.targets import target
from tests.unit.trust.house import FLEET, NOW, House, key

GOLDEN = Path(__file__).with_name("trust-1.json")
PLAN = b"\x01\x01a plan"


def signer() -> PlanSigner:
    private = key("plans-1")
    return PlanSigner(FLEET, key_of(public_of(private)).keyid, private)


def golden_text() -> str:
    files = {name: data.decode() for name, data in sorted(House().files.items())}
    signed = sign_plan(PLAN, signer(), NOW).hex()
    return json.dumps({"files": files, "signed plan": signed}, indent=1) + "\n"


def test_the_published_bytes_are_those_of_the_golden_file() -> None:
    assert golden_text() == GOLDEN.read_text(encoding="utf-8")


def test_golden_files_are_still_accepted() -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    files = {name: text.encode() for name, text in golden["files"].items()}
    state = update(begin(FLEET, files["1.root.json"]), files.get, NOW)
    assert complete(state)
    assert target(state, "releases/pump", NOW).version == 1
    signed = bytes.fromhex(golden["signed plan"])
    accepted = verify_plan(plan_gate(state), Floor(), signed, NOW, lambda _: About("r-1", 1, 1))
    assert accepted.plan == PLAN


if __name__ == "__main__":
    GOLDEN.write_text(golden_text(), encoding="utf-8")
