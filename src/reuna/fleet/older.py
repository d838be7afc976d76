"""What the restore of an older state means, in sentences for whoever did it."""

from __future__ import annotations

from collections.abc import Iterator

from reuna.exchange.storage import DUMP, LOAD
from reuna.fleet.restore import Restored


def notes(done: Restored) -> list[str]:
    """What to know and to do before the place starts. Each is one sentence or two."""
    return [*_everywhere(done), *(_of_a_cloud(done) if done.manifest.kind == "cloud" else _of_a_node(done))]


def _everywhere(done: Restored) -> Iterator[str]:
    if done.missing:
        yield (
            "Private keys are in no backup without --keys. Before the place starts bring: "
            + ", ".join(str(path) for path in done.missing)
        )
    for sentence in done.behind:
        yield f"Older than what was there: {sentence}."


def _of_a_node(done: Restored) -> Iterator[str]:
    marks, made, name = done.marks, done.manifest.made, done.manifest.name
    if marks.ledger and "ledger" not in done.carried:
        yield (
            f"The ledger ends at record {marks.records - 1}, as on {made}. If this node sent anything after"
            " that, the cloud refuses to countersign it as a rewritten ledger. Then move"
            f" {done.target.state / 'ledger'} away, so that a new one begins, and run at the cloud:"
            f" reuna ledger release {name}"
        )
    if marks.policy_serial and "policy" not in done.carried:
        yield (
            f"The newest policy that this node knows has serial {marks.policy_serial}. Put the newest signed"
            " policy.toml in place, or an older one that was replaced since would be accepted again."
        )
    if marks.metadata and "trust" not in done.carried:
        yield (
            f"What this node trusts is of {made}: version {marks.metadata.get('timestamp', 0)} of timestamp."
            " It takes what is newer from above; until then it would also accept what was replaced since."
        )


def _of_a_cloud(done: Restored) -> Iterator[str]:
    marks, made = done.marks, done.manifest.made
    dump = done.target.state / DUMP
    if dump.exists():
        yield (
            "The cloud's tables are in the dump of its PostgreSQL database; the cloud does not start before"
            f" they are back: {LOAD} {dump}; then move that file away."
        )
    for each in done.manifest.left_out:
        if each.path == "state/blobs":
            yield f"Models are not in the backup: {each.why}. Open runs need it as it was on {made}."
    yield (
        f"Nodes that were revoked, accounts that were disabled and proposals that were decided after {made}"
        " are again as they were: do it again. See `reuna node list`, `reuna people list`."
    )
    yield (
        f"The published metadata has version {marks.metadata.get('timestamp', 0)} of timestamp and"
        f" {marks.metadata.get('targets', 0)} of targets. Nodes that have seen newer ones refuse these"
        " (`version`): put the newest copy of trust/public in place, or run `reuna trust rotate online`"
        " where the root and release keys are, and renew what they signed since."
    )
    for run, rounds in marks.runs.items():
        yield (
            f"{run} goes on after round {rounds}. If its nodes have answered a later round since, they"
            f" refuse this one as replayed: then `reuna stop {run}` and begin it anew, or rotate the online"
            " keys as above."
        )
