"""What `reuna.toml` may say, as one table. Pure: the caller reads the file.

Sections ``train`` and ``data`` are the project's own: any key with a plain value goes to the
learner and to ``load`` as it stands.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec import UNSET

from reuna.core import fallback, gates, health, inference, monitoring
from reuna.core import machines as machine_types
from reuna.core.contract import KEY, MAX_BAD, SIGNAL_KEYS, as_settings, contract_of, mistake, odd
from reuna.core.errors import SettingsError
from reuna.core.foreign import shown
from reuna.core.gates import Gate
from reuna.core.records import Asking, Encoding, Grid, Setting
from reuna.core.rollout import ROLLOUT, RolloutSettings, rollout_settings
from reuna.core.scenarios import SCENARIOS, ScenarioSettings, scenario_settings
from reuna.core.schema import schema
from reuna.core.settings import REQUIRED, Option, Source, between, one_of, parse, places_of

TASKS = ("fault-classification", "anomaly-detection", "remaining-useful-life")
OWN_SECTIONS = ("train", "data")
FIRST_EXPONENT = -16  #: of a grid whose step follows the updates: 16 bits reach half of 1 there
LEAST_AWAY_S = 1.0  #: of `round.away_s`
RUNS_OWN = ("strategy.name", "strategy.rounds")  #: the rest of the section is the strategy's
STRATEGY_NAMES = (
    *("fedavg", "fedprox", "fedavgm", "fedadam", "fedbuff"),
    *("median", "trimmed-mean", "krum", "multi-krum", "geometric-median", "centred-clipping"),
)
BUFFERED = ("fedbuff",)  #: whose steps have updates of several rounds
RESERVED = (
    KEY,
    "signals",
    fallback.KEY,
    health.KEY,
    inference.KEY,
    monitoring.KEY,
)  #: no names for settings of a project

PROJECT: tuple[Option, ...] = (
    Option("project.name", str, REQUIRED, "name of the project"),
    Option("project.task", str, "fault-classification", "what is learnt", check=one_of(*TASKS)),
    Option("project.metric", str, "all", "metric by which sites are compared"),
    Option(
        "contract.version", int, 1, "version of the data contract; people raise it", check=between(1, 1e9)
    ),
    Option(
        "contract.time",
        str,
        "",
        "column of time: numbers in its unit (seconds, if it says none), or ISO 8601",
    ),
    Option("contract.every_s", float, None, "time between two readings of a signal", "s", between(1e-9, 1e9)),
    Option("contract.max_gap_s", float, None, "longest time between two readings", "s", between(1e-9, 1e9)),
    Option(
        "contract.max_missing",
        float,
        None,
        "fraction of a signal's cells that may be empty",
        check=between(0, 1),
    ),
    Option(
        "contract.max_bad",
        float,
        MAX_BAD,
        "fraction of a signal that may lie outside of its range, be of bad quality, or follow a gap",
        check=between(0, 1),
    ),
    Option(
        "signals",
        dict,
        {},
        "columns of the nodes' tables, each with what is true of it: "
        "see [The data contract](../how-to/data-contract.md)",
        check=mistake,
        each=SIGNAL_KEYS,
    ),
    Option("windows.rows", int, 0, "rows of a window; 0: in seconds, or none", check=between(0, 1e9)),
    Option(
        "windows.step",
        int,
        0,
        "rows from one window's start to the next; 0: as many as it has",
        check=between(0, 1e9),
    ),
    Option("windows.seconds", float, 0.0, "the same in time; needs `contract.every_s`", "s", between(0, 1e9)),
    Option("windows.step_s", float, 0.0, "time from one window's start to the next", "s", between(0, 1e9)),
    Option("label.column", str, "", "column with what is to be learnt"),
    Option("label.max_missing", float, 0.0, "fraction of its cells that may be empty", check=between(0, 1)),
    Option(
        "learner.entry", str, "detector.model", "module with load(folder, settings) and learner(settings)"
    ),
    Option(
        "strategy.name",
        str,
        "fedavg",
        "how updates combine",
        check=one_of(*STRATEGY_NAMES),
    ),
    Option("strategy.rounds", int, 20, "rounds of training", check=between(0, 100_000)),
    Option("strategy.server_rate", float, None, "step of the server", check=between(0, 100)),
    Option("strategy.momentum", float, None, "momentum of fedavgm", check=between(0, 0.9999)),
    Option("strategy.mu", float, None, "proximal term of fedprox", check=between(0, 1000)),
    Option("strategy.beta1", float, None, "memory of fedadam's mean", check=between(0, 0.9999)),
    Option("strategy.beta2", float, None, "memory of fedadam's mean square", check=between(0, 0.9999)),
    Option(
        "strategy.tau", float, None, "what fedadam adds to the root it divides by", check=between(1e-9, 100)
    ),
    Option("strategy.buffer", int, None, "updates of which fedbuff makes a step", check=between(1, 100_000)),
    Option(
        "strategy.max_staleness",
        int,
        None,
        "steps that a model may be behind when its update arrives; older ones are refused",
        check=between(0, 1000),
    ),
    Option("strategy.byzantine", int, None, "nodes that may lie, in each round", check=between(0, 10_000)),
    Option(
        "strategy.keep",
        int,
        None,
        "updates that multi-krum takes the mean of; 0: all it may",
        check=between(0, 10_000),
    ),
    Option(
        "strategy.iterations", int, None, "steps towards the point between updates", check=between(1, 10_000)
    ),
    Option(
        "strategy.smoothing",
        float,
        None,
        "least distance that geometric-median tells",
        check=between(1e-12, 1e6),
    ),
    Option(
        "strategy.radius",
        float,
        None,
        "longest difference of centred-clipping; 0: their median",
        check=between(0, 1e9),
    ),
    Option(
        "round.deadline_s", float, 60.0, "how long a parent waits for its children", "s", between(0.1, 1e6)
    ),
    Option(
        "round.quorum",
        float,
        1.0,
        "fraction of the edges (with `round.cohort`: of so many) that a round needs",
        check=between(0.01, 1),
    ),
    Option(
        "round.away_s",
        float,
        15.0,
        "a node that was not heard of for so long is away: a round whose quorum does without it does not "
        f"wait for it; at least {LEAST_AWAY_S:g}, or 0: it waits until its deadline",
        "s",
        between(0, 1e6),
    ),
    Option(
        "round.cohort",
        int,
        0,
        "nodes that are to give to a round, chosen by chance for each; 0: all",
        check=between(0, 1e6),
    ),
    Option(
        "round.over_select",
        float,
        1.0,
        "so many times as many are asked, and a round is closed when `round.cohort` of them gave",
        check=between(1, 10),
    ),
    Option(
        "round.grid_bits", int, 16, "bits of an encoded value: 4, 8, 16 or 32", "bit", one_of(4, 8, 16, 32)
    ),
    Option(
        "round.grid_exponent",
        int,
        None,
        "grid step is two to this power; without it the step follows the size of the updates, from "
        f"two to the power of {FIRST_EXPONENT} on; with fedbuff it stays there",
        check=between(-60, 30),
    ),
    Option(
        "round.packed",
        str,
        "auto",
        "pack updates, sums and differences of models without loss where that makes them smaller, and with "
        "`auto` where it is faster on the line of who sends or fetches them",
        check=one_of("auto", "always", "never"),
    ),
    Option(
        "round.rounding",
        str,
        "nearest",
        "how a value comes to the grid: to the nearest of it, or up or down by chance, right in the mean",
        check=one_of("nearest", "stochastic"),
    ),
    Option(
        "round.feedback",
        bool,
        True,
        "what an update does not send is kept at the node and added to its next; not with fedbuff",
    ),
    Option(
        "round.keep",
        float,
        1.0,
        "fraction of an update's values that is sent, the largest",
        check=between(0, 1),
    ),
    Option("round.max_weight", int, 65_536, "largest weight of one node", "samples", between(1, 2**31)),
    Option(
        "gates",
        dict,
        {},
        "what a model must reach at every site, by metric",
        check=gates.mistake,
        each=gates.KEYS,
    ),
    *fallback.OPTIONS,
    *health.OPTIONS,
    *inference.OPTIONS,
    *monitoring.OPTIONS,
    Option(
        "machines",
        dict,
        {},
        "types of machines, each a list of names of nodes or sites: gates hold for each type as well",
        check=machine_types.mistake,
    ),
    Option(
        "release.approval", bool, False, "a release waits until a second person at the fleet's cloud agrees"
    ),
    Option(
        "release.offline",
        float,
        0.0,
        "share of sites that may have been away when a run's model was measured; a release first runs "
        "beside what is live there",
        check=between(0, 1),
    ),
    *ROLLOUT,
    Option("run.seed", int, 1, "seed of the whole run", check=between(0, 2**31 - 1)),
    Option("run.local", bool, True, "also train each node alone, for comparison"),
    Option(
        "run.centralised", bool, True, "also train on all rows in one place, where one machine holds them"
    ),
    *SCENARIOS,
    Option(
        "tracking.mlflow",
        str,
        "auto",
        "show runs in MLflow while they go on; auto: when MLFLOW_TRACKING_URI is set",
        check=one_of("auto", "always", "never"),
    ),
)


@dataclass(frozen=True)
class ProjectSettings:
    """`reuna.toml`, checked. ``settings`` go to the learner and its data loading.

    ``places``: where each setting comes from, as ``FILE:LINE:COLUMN`` or by the source's name.
    """

    name: str
    task: str
    metric: str
    entry: str
    strategy: str
    rounds: int
    seed: int
    deadline_s: float
    quorum: float
    grid: Grid
    encoding: Encoding | None
    max_weight: int
    local: bool
    centralised: bool
    test: ScenarioSettings
    settings: Mapping[str, Setting]
    gates: tuple[Gate, ...] = ()
    machines: machine_types.Machines = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)
    mlflow: str = "auto"
    approval: bool = False
    offline: float = 0.0
    asking: Asking = field(default_factory=Asking)
    rollout: RolloutSettings = field(default_factory=RolloutSettings)


def project_settings(sources: Sequence[Source], takes: Mapping[str, Collection[str]]) -> ProjectSettings:
    """Read the table from the sources, later ones winning. Raises `SettingsError`.

    ``takes``: names of the settings that each strategy works with, see `reuna.learn.strategies`.
    """
    unused: dict[str, str] = {}

    def judge(read: Mapping[str, Any]) -> list[str]:
        unused.update(_unused(read, takes))
        return [
            *unused.values(),
            *_own_mistakes(read, takes),
            *_asking_mistakes(read),
            *odd(read),
            *fallback.odd(read),
            *inference.odd(read),
            *monitoring.odd(read),
        ]

    try:
        values = parse(PROJECT, sources, free=OWN_SECTIONS, judge=judge)
    except SettingsError as error:
        if unused:
            without = " ".join(f"--set {name}=" for name in unused)
            error.next_step = (
                "Correct each line named above. Take out what the strategy does not use, or choose another "
                f"strategy.name; `{without}` leaves it out for once."
            )
        raise
    return ProjectSettings(
        name=values["project.name"],
        task=values["project.task"],
        metric=values["project.metric"],
        entry=values["learner.entry"],
        strategy=values["strategy.name"],
        rounds=values["strategy.rounds"],
        seed=values["run.seed"],
        deadline_s=values["round.deadline_s"],
        quorum=values["round.quorum"],
        grid=_grid(values),
        encoding=_encoding(values),
        max_weight=values["round.max_weight"],
        local=values["run.local"],
        centralised=values["run.centralised"],
        test=scenario_settings(values),
        settings=_settings(values),
        gates=gates.gates(values["gates"]),
        machines=machine_types.machines(values["machines"]),
        places=places_of(sources),
        mlflow=values["tracking.mlflow"],
        approval=values["release.approval"],
        offline=values["release.offline"],
        asking=Asking(values["round.away_s"], values["round.cohort"], values["round.over_select"]),
        rollout=rollout_settings(values),
    )


def _grid(values: Mapping[str, Any]) -> Grid:
    """The grid of the first round, and of all where the step does not follow."""
    exponent = values["round.grid_exponent"]
    return Grid(values["round.grid_bits"], FIRST_EXPONENT if exponent is None else exponent)


def _encoding(values: Mapping[str, Any]) -> Encoding | None:
    """How updates are made smaller; None when nothing of it is asked."""
    together = values["strategy.name"] not in BUFFERED
    asked = Encoding(
        packed=values["round.packed"] != "never",
        by_line=values["round.packed"] == "auto" or UNSET,
        stochastic=values["round.rounding"] == "stochastic",
        feedback=values["round.feedback"] and together,
        keep=values["round.keep"],
        follow=values["round.grid_exponent"] is None and together,
    )
    return None if asked == Encoding(packed=False) else asked


def project_schema() -> dict[str, Any]:
    """`reuna.toml` as JSON Schema, for editors."""
    return schema(PROJECT, "reuna.toml", OWN_SECTIONS, rf"^({'|'.join(RESERVED)})(\.|$)")


def _unused(values: Mapping[str, Any], takes: Mapping[str, Collection[str]]) -> dict[str, str]:
    """What is set under ``[strategy]`` and the chosen one would not look at: name -> a sentence."""
    chosen = values["strategy.name"]
    said = {}
    for name, value in values.items():
        section, _, key = name.partition(".")
        if section != "strategy" or name in RUNS_OWN or value is None or key in takes[chosen]:
            continue
        said[name] = f"{name} is set, but {chosen} does not use it; {_users(name, takes)}"
    return said


def _users(name: str, takes: Mapping[str, Collection[str]]) -> str:
    """Which strategies use a setting."""
    users = [strategy for strategy, taken in takes.items() if name.partition(".")[2] in taken]
    return f"{' and '.join(users)} {'do' if len(users) > 1 else 'does'}"


def _own_mistakes(values: Mapping[str, Any], takes: Mapping[str, Collection[str]]) -> Iterator[str]:
    """What is wrong with the project's own sections, whose keys lose the section's name: none comes twice."""
    names = {"entry", "rounds", gates.ASKED, *takes[values["strategy.name"]]}
    for name, value in values.items():
        section, _, key = name.partition(".")
        if section not in OWN_SECTIONS:
            continue
        if key in names:
            yield f"{name} has the name of another setting of the run; call it otherwise"
        names.add(key)
        if key.split(".")[0] in RESERVED:
            yield f"{name} is in the wrong place: say it under [{key.split('.')[0]}]"
        if not isinstance(value, bool | int | float | str):
            yield f"{name} is {shown(value)}, expected a plain value"


def _asking_mistakes(values: Mapping[str, Any]) -> Iterator[str]:
    """More than all cannot be asked, fedbuff asks all, and an answer takes its time."""
    if 0 < values["round.away_s"] < LEAST_AWAY_S:
        yield (
            f"round.away_s is {shown(values['round.away_s'])}, expected {LEAST_AWAY_S:g} or more: an answer "
            "needs that long on its way; 0: nobody is away before the deadline"
        )
    if values["round.cohort"] and values["strategy.name"] in BUFFERED:
        yield "round.cohort is set, and fedbuff asks all nodes all the time; see strategy.buffer"
    if values["round.over_select"] > 1 and not values["round.cohort"]:
        yield "round.over_select asks more than are to give; say with round.cohort how many are to"


def _settings(values: Mapping[str, Any]) -> dict[str, Setting]:
    """Own sections and the strategy's numbers, without their section names."""
    settings: dict[str, Setting] = {"entry": values["learner.entry"], **as_settings(contract_of(values))}
    settings |= gates.as_settings(gates.gates(values["gates"]))
    settings |= fallback.as_settings(fallback.fallback_of(values))
    settings |= health.as_settings(health.health_of(values))
    settings |= inference.as_settings(inference.inference_of(values))
    settings |= monitoring.as_settings(monitoring.monitoring_of(values))
    for name, value in values.items():
        section, _, key = name.partition(".")
        if section not in (*OWN_SECTIONS, "strategy") or name == "strategy.name":
            continue
        if section == "strategy" and value is None:
            continue  # the strategy has its own, see reuna.learn.strategies
        settings[key] = value
    return settings
