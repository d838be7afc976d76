"""Attacks by a hostile coordinator, fog, edge and neighbour on a real fleet: each is refused.

First on the fleet as it is: the attack gets nothing, the operator finds a line about it, and the
honest round beside it ends with the model of an undisturbed one, bit for bit. Then on the same
places with one guard switched off: now the same attack succeeds. A guard that is not needed would
not be a guard.

    python -m drills.hostile [--only NAME,NAME] [--json]
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from drills.hostile_peers import beside, lists, plans, uploads, words
from drills.hostile_peers.attack import Attack, Outcome
from drills.hostile_peers.world import World
from reuna.fleet.ending import in_order, until_done

ATTACKS: tuple[Attack, ...] = (*plans.ATTACKS, *lists.ATTACKS, *uploads.ATTACKS, *words.ATTACKS)
HISTORY = 2  #: rounds of a first run, so that there is something to replay


async def guarded(
    folder: Path, attacks: Sequence[Attack], say: Any
) -> tuple[list[tuple[Outcome, bool]], dict[str, float]]:
    """What came of each attack on the fleet as it is, and whether the round beside it was as ever.

    And how long a round takes while bad peers are at it, see `drills.hostile_peers.beside`.
    """
    found = []
    calm: dict[bool, str] = {}
    async with World(folder, None) as world:
        await world.run(HISTORY)
        for attack in attacks:
            if attack.closes not in calm:
                calm[attack.closes] = await world.calm(attack)
            outcome = await world.disturbed(attack)
            same = outcome.model == calm[attack.closes]
            found.append((outcome, same))
            told = outcome.seen.partition(" WARNING ")[2] or outcome.seen
            say(f"   {'refused' if outcome.refused else 'NOT REFUSED'}: {attack.name} ({attack.by})")
            say(f"      {told[:150] if told else 'NOT SEEN'}{'' if same else ' ANOTHER MODEL'}")
        slowed = await beside.measured(world)
        say(
            f"   a round takes {slowed['calm_s']} s, beside slow, silent and greedy peers {slowed['beside_s']} s"
        )
    return found, slowed


async def unguarded(folder: Path, attacks: Sequence[Attack], say: Any) -> set[str]:
    """Attacks that succeed where their guard is switched off."""
    found = set()
    async with World(folder, folder / "control") as world:
        await world.run(HISTORY)
        for attack in attacks:
            async with world.without(attack.guards):
                outcome = await world.disturbed(attack)
            if not outcome.refused:
                found.add(attack.name)
            say(f"   {'refused, STILL' if outcome.refused else 'succeeds'}: {attack.name}")
    return found


async def drill(attacks: Sequence[Attack], say: Any) -> dict[str, Any]:
    """Both fleets and what came of it."""
    with tempfile.TemporaryDirectory(prefix="reuna-hostile-") as folder:
        say(f"1. {len(attacks)} attacks on a fleet of 1 cloud, 2 fogs, 3 edges")
        outcomes, slowed = await guarded(Path(folder) / "guarded", attacks, say)
        say("2. the same attacks, each with its guard switched off")
        succeeded = await unguarded(Path(folder) / "unguarded", attacks, say)
    whole = [bool(outcome.refused and outcome.seen and same) for outcome, same in outcomes]
    return {
        "attacks": len(attacks),
        "refused": sum(outcome.refused for outcome, _ in outcomes),
        "succeeded_without_guard": len(succeeded),
        "seen_by_operator": sum(bool(outcome.seen) for outcome, _ in outcomes),
        "same_model_beside": sum(same for _, same in outcomes),
        "names": [attack.name for attack in attacks],
        "failed": [
            attack.name
            for attack, good in zip(attacks, whole, strict=True)
            if not good or attack.name not in succeeded
        ],
        **slowed,
    }


def held(result: dict[str, Any]) -> bool:
    """Whether every attack was refused, seen and without effect, and every guard needed."""
    kinds = ("refused", "succeeded_without_guard", "seen_by_operator", "same_model_beside")
    same = all(result[kind] == result["attacks"] for kind in kinds)
    return result["attacks"] > 0 and same and beside.bounded(result)


def chosen(names: str) -> list[Attack]:
    """The attacks of those names, all without any. Exits with a message for an unknown one."""
    wanted = names.split(",") if names else [attack.name for attack in ATTACKS]
    known = {attack.name: attack for attack in ATTACKS}
    unknown = [name for name in wanted if name not in known]
    if unknown:
        sys.exit(f"error: no attack {unknown[0]!r}; there are: {', '.join(known)}")
    return [known[name] for name in wanted]


def main() -> int:
    """Run the drill; the last line is JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="names of attacks, separated by commas")
    parser.add_argument("--json", action="store_true", help="print the JSON line alone")
    args = parser.parse_args()
    logging.disable(logging.CRITICAL)  # what attackers are told is no news
    say = (lambda _text: None) if args.json else (lambda text: print(text, flush=True))
    result = until_done(drill(chosen(args.only), say))
    print(json.dumps(result))
    return 0 if held(result) else 1


if __name__ == "__main__":
    in_order(lambda: sys.exit(main()))
