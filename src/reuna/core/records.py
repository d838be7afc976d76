"""Frozen records that pass between stages and places.

All are `msgspec.Struct`s, so the same definition is the record in memory and, through
`reuna.wire`, the message between places. Identities, digests and names are plain strings:

    node name    ``[a-z0-9][a-z0-9-]{0,62}``
    digest       64 hexadecimal characters, see `reuna.wire.digest`
    run          ``r-`` and a time and a random part, see `reuna.loop.plan.run_id`
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from reuna.core.roster import Stand

Metrics = dict[str, float]
Setting = bool | int | float | str
Refusals = dict[str, dict[str, int]]  #: authenticated sender -> reason -> how often
Task = Literal["train", "evaluate", "local", "check"]
Word = Literal["yes", "wait", "no"]
Purpose = Literal["training", "evaluation", "inference"]
Kind = Literal["update", "partial", "updates", "report"]
Combine = Literal["sum", "singly"]


class Identity(msgspec.Struct, frozen=True):
    """Who somebody is, as its certificate says: ``spiffe://<fleet>/<role>/<name>``.

    What a site certifies itself (its gateway and its edges) has the site's host before the fleet's:
    ``spiffe://<site>.<fleet>/edge/<name>``. Name constraints hold a site's authority to that host.
    """

    fleet: str
    role: str
    name: str
    site: str = ""

    @property
    def host(self) -> str:
        """The URI's host: the fleet's trust domain, or the site's below it."""
        return f"{self.site}.{self.fleet}" if self.site else self.fleet

    @property
    def uri(self) -> str:
        """The URI that stands in the certificate's subject alternative name."""
        return f"spiffe://{self.host}/{self.role}/{self.name}"


class Grid(msgspec.Struct, frozen=True):
    """The power-of-two grid of a round: a value is ``integer * 2**exponent``."""

    bits: int
    exponent: int

    @property
    def step(self) -> float:
        """Distance of two neighbouring values."""
        return float(2.0**self.exponent)


class Encoding(msgspec.Struct, frozen=True):
    """How an update is made smaller than its integers; see `reuna.learn.rounding` and `reuna.learn.lots`.

    ``packed``: bodies are packed without loss where that makes them smaller; ``by_line``: and where that is
    faster on the line of who sends them (`reuna.core.line`). ``stochastic``: rounded up or down by chance.
    ``feedback``: what is not sent is added in the next round. ``keep``: fraction of the values that are sent,
    the largest. ``follow``: the grid's step follows the size of the updates.
    """

    packed: bool = True
    stochastic: bool = False
    feedback: bool = False
    keep: float = 1.0
    follow: bool = False
    by_line: bool | msgspec.UnsetType = msgspec.UNSET  #: False when unset, and then no byte of a message


WAITS = 0.0  #: `Plan.away_s` of who waits: this very object, for msgspec leaves a float out by identity


class Asking(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whom a round asks, and for whom it waits; see `reuna.core.cohort`.

    ``away_s``: who was not heard of for so long is away, and is not waited for where the quorum does without;
    0: is waited for until the deadline. ``cohort``: how many nodes are to give to a round, 0: all.
    ``over_select``: so many times as many are asked, and the first of them count.
    """

    away_s: float = WAITS
    cohort: int = 0
    over_select: float = 1.0


class Plan(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one round asks of the nodes. A digest of its bytes binds every answer to it.

    The plan is a pure function of the run and the round, so that a restarted cloud publishes
    the same bytes. ``cohort`` lists the edges asked under the addressee. ``deadline_s`` is how
    long a parent waits after it first saw the plan. ``inline`` carries the base model itself
    when it is small. ``before`` is the digest of what the round before asked of every fog
    (`reuna.loop.plan.shared`), so that the plans of a run hang together. ``combine``: whether a fog
    passes up the sum of its updates, or each of them, which a robust strategy needs.

    ``encoding``: None for plain integers. ``carried``: for each edge the last round in which it counted,
    with error feedback; what it did not send then is what it adds now. ``base`` and ``step``: the model of
    the round before, and the difference to it as a blob of ``step_size`` bytes, '' when there is none.
    ``tree``: the fogs at and under the addressee with their children (`reuna.core.tree`), empty where all of
    the cohort stands under the addressee itself.

    ``away_s``: as in `Asking`, 0 in attempts after the first. ``enough``: with so many that gave, the round
    under the addressee is closed; 0: all are waited for.

    ``buffer``: a step is made of so many updates, whatever model they were made from, and nobody drops its
    work for a newer plan; 0: rounds one after the other. ``bases``: digests of the addressee's plans of the
    rounds before, the newest first; updates made for these are taken too, and for none that are older.
    ``pace``: how many updates of the edges directly under each fog of the tree came lately.
    """

    run: str
    round: int
    attempt: int
    task: Task
    model: str
    model_size: int
    params: int
    cohort: tuple[str, ...]
    quorum: int
    deadline_s: float
    grid: Grid
    max_weight: int
    capacity: int
    seed: int
    bundle: str
    bundle_size: int
    settings: dict[str, Setting] = {}
    inline: bytes | None = None
    before: str = ""
    combine: Combine = "sum"
    encoding: Encoding | None = None
    carried: dict[str, int] = {}
    base: str = ""
    step: str = ""
    step_size: int = 0
    tree: dict[str, tuple[str, ...]] = {}
    away_s: float = WAITS
    enough: int = 0
    buffer: int = 0
    bases: tuple[str, ...] = ()
    pace: dict[str, int] = {}

    @property
    def key(self) -> tuple[str, int, int]:
        """What tells one asked round from another."""
        return (self.run, self.round, self.attempt)


class Work(msgspec.Struct, frozen=True):
    """What a bundle is to do with a site's data: in which run, and for the purpose of what."""

    run: str
    bundle: str
    purpose: Purpose


class Terms(msgspec.Struct, frozen=True):
    """On what terms a site lets code work: least level of its sandbox, columns it may read (None: all)."""

    level: int = 0
    columns: tuple[str, ...] | None = None


class Said(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a node says of one thing before a run: yes, not yet, or no, and why in a word of a closed list.

    ``about`` is a key of `reuna.core.readiness.ABOUT`; see there for ``why``.
    """

    about: str
    word: Word = "yes"
    why: str = ""


class Rehearsal(msgspec.Struct, frozen=True):
    """What a site's policy would say to a plan, and on what terms code may read the node's data."""

    said: tuple[Said, ...]
    terms: Terms = Terms()


class RunSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a person asks for: one training run over a fleet.

    ``fogs`` maps each fog to the edges directly under it; ``above`` names the fog over each fog that does
    not stand directly under the cloud; ``quorum`` is the fraction a round needs of the edges whose updates
    are wanted (all, or those of ``asking.cohort``);
    ``settings`` go to strategy and learner alike; ``local`` asks each node for its local-only
    baseline as well. ``build``: the SHA-256 of the build it was begun from, which the cloud keeps;
    ``retries``: the run of which it is another try, with the same of everything else. ``why``: what made
    the cloud begin it by itself, as ``schedule nightly`` or ``drift: …``; '' where a person did.
    ``encoding``: None for plain integers.
    """

    run: str
    project: str
    task: str
    metric: str
    rounds: int
    strategy: str
    fogs: dict[str, tuple[str, ...]]
    model: str
    model_size: int
    params: int
    bundle: str
    bundle_size: int
    seed: int = 1
    grid: Grid = Grid(bits=32, exponent=-24)
    max_weight: int = 65_536
    deadline_s: float = 60.0
    quorum: float = 1.0
    settings: dict[str, Setting] = {}
    local: bool = True
    evaluate: bool = True
    build: str = ""
    retries: str = ""
    why: str = ""
    encoding: Encoding | None = None
    above: dict[str, str] = {}
    asking: Asking = Asking()


class KeptBuild(msgspec.Struct, frozen=True):
    """A build that the cloud keeps: digests of the file and of its code, bytes, since when (epoch s).

    ``commit``, ``dirty`` and ``signed_by`` (public keys, 64 hexadecimal digits) are what its provenance
    says; '' and nobody when there is none.
    """

    digest: str
    project: str
    code: str
    size: int
    at: float
    commit: str = ""
    dirty: bool = False
    signed_by: tuple[str, ...] = ()


UNHEARD = "not heard of before the deadline"  #: what a parent says of a child that was silent
AWAY = "it is away and was not waited for"  #: of one that the round did not wait for
SPARED = "enough others gave before it"  #: of one that was asked beyond what was needed


class Member(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one edge gave to a round; ``absent`` holds the reason when it gave nothing.

    ``size`` is the bytes of its update as its parent received them; nobody says it of itself. ``said``
    answers a plan of task ``check``. ``base``: the round whose plan its update answers, where a parent tells
    of several rounds (`Plan.buffer`).
    """

    node: str
    weight: int = 0
    digest: str = ""
    metrics: Metrics = {}
    saturated: int = 0
    absent: str = ""
    size: int = 0
    said: tuple[Said, ...] = ()
    base: int = 0


class Contribution(msgspec.Struct, frozen=True, omit_defaults=True):
    """The manifest of what a child hands to its parent for one round.

    kind      body                                    ``weight``
    update    params integers of the plan's grid      the member's own
    partial   params integers, already weighted sums  sum over the members
    updates   params integers of each that gave one   sum over the members
    report    none (metrics, or an absence)           0

    ``updates`` stand one after the other in the order of their members; a plan asks for them.

    ``width`` is bytes per integer (see `reuna.learn.grid.pack`); ``size`` the body's bytes. ``packed``: the
    body is lots (`reuna.learn.lots`), and no integer needs more than ``width`` bytes. ``refused`` is what a
    parent that closes its round refused since it closed the one before.
    """

    run: str
    round: int
    attempt: int
    sender: str
    plan: str
    kind: Kind
    params: int
    width: int
    weight: int
    digest: str
    size: int
    members: tuple[Member, ...]
    refused: Refusals = {}
    packed: bool = False

    @property
    def key(self) -> tuple[str, int, int, str]:
        """One contribution is accepted for each key."""
        return (self.run, self.round, self.attempt, self.sender)


class Receipt(msgspec.Struct, frozen=True):
    """The parent's word that a contribution is durable and counted once."""

    run: str
    round: int
    attempt: int
    sender: str
    digest: str


Words = Annotated[str, msgspec.Meta(max_length=400, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]


class ReleaseAsked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A release that a second person has to allow. ``digest``: of the whole file."""

    project: Words
    version: Annotated[int, msgspec.Meta(ge=1, lt=2**53)]
    run: Words
    digest: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    gates: Words

    def summary(self) -> str:
        """What a second person reads."""
        return f"release {self.project} {self.version} of {self.run}, {self.digest[:12]}: {self.gates}"


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that happened on a node. (node, boot, seq) makes its effect happen once."""

    node: str
    boot: str
    seq: int
    at: float
    what: str
    run: str = ""
    round: int = 0
    fields: dict[str, Setting] = {}


Protocol = Annotated[int, msgspec.Meta(ge=0, le=1_000)]


class Hello(msgspec.Struct, frozen=True, omit_defaults=True):
    """A node says that it is there and asks for the current plan.

    It speaks the protocols ``oldest`` to ``protocol`` (`reuna.wire`). Who does not say so speaks 1.
    ``every_s``: when it will say so again, 0 for who does not tell. ``works_on``: the beginning of the digest
    of the plan that it works on and so need not be told, '' for none. ``held``: it is a fog that holds the
    round open past its deadline, since an edge's transfer moves. ``fogs``: of each fog under the node
    the children that it last told of; such a fog is a child of the node or of another of them. ``below``: how
    far a fog has told who is right below it; one that does not say that names all of them in ``children``.
    """

    node: str
    boot: str
    version: str
    children: tuple[str, ...] = ()
    protocol: Protocol = 1
    oldest: Protocol = 1
    every_s: Annotated[float, msgspec.Meta(ge=0.0, le=3600.0)] = 0.0
    works_on: Annotated[str, msgspec.Meta(max_length=64)] = ""
    held: bool = False
    fogs: dict[str, tuple[str, ...]] = {}
    below: Stand | None = None


class News(msgspec.Struct, frozen=True):
    """A parent's hint that newer metadata is there: the version of its timestamp. Nobody believes it."""

    timestamp: int


class Holding(msgspec.Struct, frozen=True, omit_defaults=True):
    """A release that a node was to take. ``digest``: the release's; ``at``: when that was judged, epoch s.

    ``refused`` is empty when the node holds it and every digest held; else a word of `DISTRUST`, or the
    code of the error that stood against it.
    """

    path: Annotated[str, msgspec.Meta(max_length=140)]
    project: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    version: Annotated[int, msgspec.Meta(ge=1, le=2**31)]
    digest: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
    at: Annotated[float, msgspec.Meta(ge=0.0)]
    refused: Annotated[str, msgspec.Meta(max_length=40)] = ""


class ShownHead(msgspec.Struct, frozen=True):
    """A node shows a signed head of its ledger, for the cloud to countersign.

    ``head`` is the statement (`reuna.trust.heads`), ``key`` the public key (32 bytes) that the ledger
    is signed with. ``proof`` is made over both by the key of the node's certificate; ``chain`` is that
    certificate and what stands between it and the root, DER.
    """

    head: bytes
    key: bytes
    chain: tuple[bytes, ...]
    proof: bytes


class Flow(msgspec.Struct, frozen=True):
    """Bytes of one kind that an egress sent over one link."""

    link: str
    kind: str
    payload_bytes: int
    messages: int
