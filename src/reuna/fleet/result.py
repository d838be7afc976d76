"""The published form of ``runs/<id>/result.json`` and of ``reuna show --json``.

Scripts rely on it: fields are added, never renamed. ``msgspec.json.schema(ResultFile)`` is its
JSON Schema; docs/reference/result.md explains each field.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from reuna.adapters.files import storage_error
from reuna.core.errors import Corrupted
from reuna.core.records import Metrics, RunSpec


class Site(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """One site: its nodes and what each way of training gave there."""

    site: str
    nodes: list[str]
    local: Metrics = {}
    federated: Metrics = {}
    centralised: Metrics = {}
    absent: dict[str, str] = {}
    by_node: dict[str, Metrics] = {}


class Process(msgspec.Struct, forbid_unknown_fields=True):
    """A process of the run and its largest resident size."""

    name: str
    peak_mib: float


class FlowLine(msgspec.Struct, forbid_unknown_fields=True):
    """Payload of one kind over one link, in the direction of its arrow."""

    link: str
    kind: str
    bytes: int
    messages: int


class RuleLine(msgspec.Struct, forbid_unknown_fields=True):
    """What left a node under one rule of its site's policy."""

    node: str
    kind: str
    to: str
    rule: str
    bytes: int
    messages: int


class RefusedLine(msgspec.Struct, forbid_unknown_fields=True):
    """What a site's policy refused; the same refusal is noted once a minute."""

    node: str
    kind: str
    to: str
    rule: str
    why: str
    noted: int


class RefusedUpdates(msgspec.Struct, forbid_unknown_fields=True):
    """Contributions of one sender that a fog or the cloud refused for one reason."""

    at: str
    sender: str
    reason: str
    times: int


class SourceLine(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Where the code of a run comes from: ``code`` is the digest of its bundle, which sites approve.

    ``commit`` is '' outside of a repository; ``dirty``: what ran is not what that commit has. ``build``: the
    digest of the build that was run, '' for a folder.
    """

    code: str
    commit: str = ""
    dirty: bool = False
    remote: str = ""
    build: str = ""


class Inputs(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """All that the bits of a run come from; `reuna.fleet.unchanged` compares it with what is asked later.

    ``code`` is the digest of the bundle, ``settings`` that of every checked setting that bears on the run,
    ``packages`` that of the installed packages the code needs, '' when one is missing where the run was
    begun. ``rules`` and ``data``: node -> keyed digest of its site's policy, where one was there before the
    run, and of its files; ``data`` is empty when those of some node are not known.
    """

    code: str
    settings: str
    fleet: str
    fogs: dict[str, tuple[str, ...]]
    sites: dict[str, tuple[str, ...]]
    packages: str
    rules: dict[str, str]
    data: dict[str, str]


class DataLine(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The data that a node trained on. ``samples``: windows that it learned from, as its learner counts.

    ``fingerprint``: a keyed digest of its files (`reuna.core.fingerprint`), '' when none left the site;
    ``files`` and ``bytes`` are those behind it, ``rows`` what the data contract counted in its tables.
    """

    node: str
    samples: int = 0
    fingerprint: str = ""
    files: int = 0
    bytes: int = 0
    rows: int = 0


class CodeApproval(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Who let the code of a run work at a node, by the policy that its site's officers signed."""

    node: str
    by: list[str]
    until: str
    site: str
    serial: int
    signed_by: list[str]


class RoleApproval(msgspec.Struct, forbid_unknown_fields=True):
    """The list of the code role that vouches for it: its version, and the ids of the keys that signed it."""

    version: int
    threshold: int
    signed_by: list[str]


class RunApproval(msgspec.Struct, forbid_unknown_fields=True):
    """Two people: who asked for the run, and who allowed exactly that. Times in seconds since the epoch."""

    proposal: str
    digest: str
    asked_by: str
    asked_at: float
    approved_by: str
    approved_at: float


class Approvals(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Who approved a run and its code, as far as it can be seen from where the run was begun.

    ``unseen``: nodes whose policy lies on their own machine alone.
    """

    code: list[CodeApproval] = []
    unseen: list[str] = []
    code_role: RoleApproval | None = None
    run: RunApproval | None = None


class HeadLine(msgspec.Struct, forbid_unknown_fields=True):
    """The newest countersigned head of a node's ledger (`reuna.trust.heads`); bytes in hexadecimal."""

    node: str
    ledger: str
    seq: int
    at: float
    key: str
    countersignature: str


class VerdictLine(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """One gate at one site, or for one type of machines: `reuna.loop.release.Verdict`."""

    gate: str
    metric: str
    limit: str
    bound: float
    outcome: str
    site: str = ""
    value: float | None = None
    margin: float | None = None
    why: str = ""
    machines: str = ""


class Judgement(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What the gates say of a run's model, as ``reuna gate --json`` prints it."""

    run: str
    decision: str
    verdicts: list[VerdictLine]
    champion: str = ""
    worst: VerdictLine | None = None


class ContractLine(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """How often a node's data passed and failed a rule; without ``signal`` over all columns.

    ``broken`` says that it failed more often than the contract allows.
    """

    rule: str
    passed: int
    failed: int
    signal: str = ""
    broken: bool = False


class ContractReport(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What a node told of how its data keep the contract; ``withheld`` counts stayed by its site's policy."""

    node: str
    version: int
    rules: list[ContractLine]
    withheld: int = 0


class SignalBins(msgspec.Struct, forbid_unknown_fields=True):
    """How many readings of a signal lie in each of equally wide bins from min to max, and outside."""

    min: float
    max: float
    counts: list[int]
    outside: int
    nodes: int


class ReferenceBins(msgspec.Struct, forbid_unknown_fields=True):
    """Of the tables that nodes trained on, summed; ``withheld`` counts stayed by the sites' policies."""

    version: int
    bins: dict[str, SignalBins]
    withheld: int


class ResultFile(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A finished run."""

    run: str
    project: str
    task: str
    metric: str
    sites: list[Site]
    worst_site: dict[str, Any]
    bytes_by_kind: dict[str, int]
    bytes_by_link: dict[str, int]
    flows: list[FlowLine]
    wall_s: float
    rounds: int
    strategy: str
    timeline: list[dict[str, Any]]
    centralised_s: float | None
    processes: list[Process]
    model_digest: str
    came: list[FlowLine] = []
    wall_by_method_s: dict[str, float] = {}
    left_by_rule: list[RuleLine] = []
    contract: list[ContractReport] = []
    bins: ReferenceBins | None = None
    refused: list[RefusedUpdates] = []
    saturated: int = 0
    refused_by_policy: list[RefusedLine] = []
    asked: RunSpec | None = None
    source: SourceLine | None = None
    inputs: Inputs | None = None
    data: list[DataLine] = []
    approvals: Approvals | None = None
    heads: list[HeadLine] = []
    gates: Judgement | None = None
    split: int | None = None
    scaling: dict[str, Any] | None = None


def read_result(folder: Path) -> dict[str, Any]:
    """A run's result, as its schema has it. Raises `Corrupted`, `NotUsable`."""
    file = folder / "result.json"
    try:
        result: dict[str, Any] = json.loads(file.read_bytes())
        check_result(result)
    except OSError as error:
        raise storage_error(error, file) from error
    except (ValueError, RecursionError) as error:
        raise Corrupted(
            f"{file} is no result of a run: {error}", f"Move {folder} away, and run again."
        ) from error
    return result


def check_result(result: dict[str, Any]) -> dict[str, Any]:
    """The result as published. Raises `msgspec.ValidationError` for anything else: our own mistake."""
    built: dict[str, Any] = msgspec.to_builtins(msgspec.convert(result, ResultFile))
    return built
