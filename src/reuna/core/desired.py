"""What a fleet is wanted to be, as one table: the TOML files of a directory in git. Pure.

Every file may hold any part; what is said twice is a mistake. `reuna.loop.deploy` compares it with what
is there. Nothing stands here that is not carried out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec.structs import replace

from reuna.core.errors import SettingsError
from reuna.core.rollout import LONGEST_S
from reuna.core.schema import schema
from reuna.core.settings import Option, Source, between, located, one_of, parse
from reuna.core.subjects import is_name
from reuna.core.trigger import (
    DAYS,
    KINDS,
    METRICS,
    MOST_MACHINES,
    MOST_ROWS,
    ON,
    YEARS_S,
    Budget,
    Trigger,
    days_of_week,
    interval,
    kinds_of_alarms,
    mistake,
    quiet_hours,
    time_of_day,
)

ALL = "all"  #: a wave of every node, also of those that are yet to come
MAX_WAVES = 32
NAMES = "use a-z, 0-9 and -, at most 63"
COOLDOWN_S, BUDGET = 86_400.0, {"runs": 4, "days": 30}  #: of triggers that say none


def _names(what: str, fewest: int) -> Callable[[Any], str]:
    def check(values: Any) -> str:
        wrong = [value for value in values if not (isinstance(value, str) and is_name(value))]
        if wrong:
            return f"names no {what}: {NAMES}"
        if len(set(values)) != len(values):
            return "names one twice"
        return "" if len(values) >= fewest else f"must name at least {fewest}"

    return check


def _waves(values: Any) -> str:
    if len(values) > MAX_WAVES:
        return f"has more than {MAX_WAVES} waves"
    return _names("cohort, site or node", 1)(values)


def _needs(*keys: str) -> Callable[[Mapping[str, Any]], str]:
    def check(table: Mapping[str, Any]) -> str:
        lacking = [key for key in keys if key not in table]
        return f"needs {' and '.join(lacking)}" if lacking else ""

    return check


def _needs_one(*keys: str) -> Callable[[Mapping[str, Any]], str]:
    def check(table: Mapping[str, Any]) -> str:
        return "" if any(key in table for key in keys) else f"needs {' or '.join(keys)}"

    return check


def _folder(value: str) -> str:
    return "" if value and "\0" not in value else "must be a folder"


def _project(value: str) -> str:
    return "" if 1 <= len(value) <= 200 else "must be the name of a project, at most 200 characters"


def _run(value: str) -> str:
    return "" if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", value) else "must be the name of a run"


def _budget(value: Mapping[str, Any]) -> str:
    try:
        msgspec.convert(value, Budget)
    except msgspec.ValidationError:
        return "must be as { runs = 4, days = 30 }, with up to 10000 runs and 3660 days"
    return ""


COOLDOWN = "how long none is begun after the one before"
WINDOW = "most runs in any so many days"
AGAIN = Option("again", str, None, "run whose code, initial model and settings it has", check=_run)
#: How often a run is begun by itself at most, of schedules and triggers alike.
LIMITS = (
    Option("quiet", str, None, "hours in which none is begun, UTC, as 22:00-06:00", check=quiet_hours),
    Option("approval", bool, False, "each is proposed, and begun once a second person agrees"),
)

DESIRED: tuple[Option, ...] = (
    Option("fleet.name", str, "", "the fleet that this is about; it is applied to no other"),
    Option(
        "cohorts",
        dict,
        {},
        "names for groups of machines",
        check=_needs("members"),
        each=(Option("members", list, None, "sites and nodes", check=_names("site or node", 1)),),
    ),
    Option(
        "projects",
        dict,
        {},
        "projects whose releases are kept as said here, by the name in their reuna.toml",
        check=_needs_one("champion", "release_from"),
        each=(
            Option("champion", int, None, "version that is champion", check=between(1, 2**31)),
            Option(
                "release_from",
                str,
                None,
                "folder of the project, from this directory on: what the cloud trained by itself with the "
                "code there becomes the challenger, once the gates there hold",
                check=_folder,
            ),
            Option(
                "rollout",
                bool,
                False,
                "its release is rolled out by itself, as its placement says and `[rollout]` in "
                "release_from; what was rolled out before stays listed for the way back",
            ),
        ),
    ),
    Option(
        "placements",
        dict,
        {},
        "which release is where; a project that is named here or under `projects` has no other",
        check=_needs("project"),
        each=(
            Option("project", str, None, "the project", check=_project),
            Option(
                "version",
                int,
                None,
                "version of its release; else it follows",
                check=between(1, 2**31),
            ),
            Option(
                "follows",
                str,
                "champion",
                "instead of a version: `champion`, or `challenger` (the champion while there is none)",
                check=one_of("champion", "challenger"),
            ),
            Option(
                "waves",
                list,
                [ALL],
                "a cohort, site or node; `all`: every node, also later ones; with `rollout` of the project "
                "several, one after the other, instead of those in release_from",
                check=_waves,
            ),
            Option(
                "soak_s",
                float,
                None,
                "with `rollout` of the project: how long a wave holds before the next one, instead of what "
                "release_from says",
                "s",
                between(0, LONGEST_S),
            ),
        ),
    ),
    Option(
        "schedules",
        dict,
        {},
        "runs that the cloud begins again by the clock; one that is not here is begun no more",
        check=_needs("again"),
        each=(
            AGAIN,
            Option("at", str, None, "time of day, UTC, as 02:30", check=time_of_day),
            Option("days", list, list(DAYS), "days of the week, with `at`", check=days_of_week),
            Option("every", str, None, "instead of `at`: from one time to the next, as 6h", check=interval),
            Option("cooldown_s", float, 0.0, COOLDOWN, "s", between(0, YEARS_S)),
            Option("budget", dict, None, WINDOW, check=_budget),
            *LIMITS,
        ),
    ),
    Option(
        "triggers",
        dict,
        {},
        "runs that the cloud begins again by what it sees; one that is not here is begun no more",
        check=_needs("on", "again"),
        each=(
            Option(
                "on",
                str,
                None,
                "`drift` of machines, `nodes` that join, or new labelled `data`",
                check=one_of(*ON),
            ),
            AGAIN,
            Option(
                "kinds",
                list,
                ["process"],
                "alarms that count: process, machine, sensor, concept",
                check=kinds_of_alarms,
            ),
            Option(
                "metric",
                str,
                None,
                "instead of alarms: what nodes tell of their watch",
                check=one_of(*METRICS),
            ),
            Option(
                "above",
                float,
                1.0,
                "what counts of the metric; 1 is the level of an alarm",
                "",
                between(0, 1e9),
            ),
            Option(
                "rows",
                int,
                None,
                "how many new labelled rows all nodes have together",
                "",
                between(1, MOST_ROWS),
            ),
            Option("machines", int, 1, "at how many machines at least", "", between(1, MOST_MACHINES)),
            Option("share", float, 0.0, "at which share of the fleet's machines at least", "", between(0, 1)),
            Option("for_s", float, 0.0, "how long that has to last", "s", between(0, YEARS_S)),
            Option("cooldown_s", float, COOLDOWN_S, COOLDOWN, "s", between(1, YEARS_S)),
            Option("budget", dict, BUDGET, WINDOW, check=_budget),
            *LIMITS,
        ),
    ),
)
TABLES = tuple(option.name for option in DESIRED if option.each)


@dataclass(frozen=True)
class Placement:
    """One release of one project, and where it is.

    ``version`` 0: that of what is followed, ``champion`` or ``challenger``. ``waves`` and ``soak_s`` (None:
    not said) are those of its rollout, where the project is rolled out; else ``waves`` has one name.
    """

    name: str
    project: str
    version: int
    waves: tuple[str, ...] = (ALL,)
    soak_s: float | None = None
    follows: str = "champion"


@dataclass(frozen=True)
class Desired:
    """The whole directory, checked. ``champions``: project -> version; ``places``: where each part stands.

    ``sources``: project -> folder with the code and the gates of what is trained without a person.
    ``triggers``: schedules among them, which are those of the clock. ``rollouts``: projects whose newest
    release is rolled out by itself.
    """

    fleet: str
    cohorts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    champions: Mapping[str, int] = field(default_factory=dict)
    placements: tuple[Placement, ...] = ()
    triggers: Mapping[str, Trigger] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    rollouts: frozenset[str] = frozenset()

    @property
    def projects(self) -> frozenset[str]:
        """Those that are kept as said here."""
        return frozenset({*self.champions, *self.sources, *(each.project for each in self.placements)})


def desired(sources: Sequence[Source]) -> Desired:
    """What the files say together. Raises `SettingsError` with every mistake at its place."""
    mistakes: list[str] = []
    values = [_read(source, mistakes) for source in sources]
    places = {name: place for source in reversed(sources) for name, place in source.places.items()}
    tables: dict[str, dict[str, Any]] = {name: {} for name in TABLES}
    for source, read in zip(sources, values, strict=True):
        for table in TABLES:
            for name, entry in read.get(table, {}).items():
                if name in tables[table]:
                    mistakes.append(f"{source.place(f'{table}.{name}')}: {table}.{name} is said twice")
                tables[table].setdefault(name, entry)
    fleet = _fleet(sources, values, mistakes)
    placements = [_placement(name, entry) for name, entry in tables["placements"].items()]
    cohorts = {
        name: tuple(entry["members"]) for name, entry in tables["cohorts"].items() if "members" in entry
    }
    found = [each for each in placements if isinstance(each, Placement)]
    mistakes += [each for each in placements if isinstance(each, str)]
    mistakes += _bad_cohorts(cohorts)
    triggers = _triggers(tables, mistakes)
    rollouts = frozenset(name for name, entry in tables["projects"].items() if entry.get("rollout"))
    mistakes += _bad_rollouts(found, rollouts)
    if mistakes:
        lines = dict.fromkeys(located(line, places) for line in mistakes)
        raise SettingsError(
            "\n".join(lines), "Correct each line named above; docs/how-to/gitops.md has an example."
        )
    champions, folders = (
        {name: entry[key] for name, entry in tables["projects"].items() if key in entry}
        for key in ("champion", "release_from")
    )
    ordered = tuple(sorted(found, key=lambda each: each.name))
    return Desired(fleet, cohorts, champions, ordered, triggers, places, folders, rollouts)


def _read(source: Source, mistakes: list[str]) -> Mapping[str, Any]:
    try:
        return parse(DESIRED, [source])
    except SettingsError as error:
        mistakes += error.message.splitlines()
        return {}


def _fleet(sources: Sequence[Source], values: Iterable[Mapping[str, Any]], mistakes: list[str]) -> str:
    """The one name that is said. A file with mistakes has none."""
    said = [
        (read["fleet.name"], source)
        for source, read in zip(sources, values, strict=True)
        if read.get("fleet.name")
    ]
    if len({name for name, _ in said}) > 1:
        mistakes += [
            f"{source.place('fleet.name')}: fleet.name is {name!r}, elsewhere another"
            for name, source in said
        ]
    if not said and not mistakes:
        files = ", ".join(source.origin for source in sources) or "no file"
        mistakes.append(f"{files}: fleet.name is missing: {DESIRED[0].help}")
    return said[0][0] if said else ""


def _placement(name: str, entry: Mapping[str, Any]) -> Placement | str:
    """The placement, or what is wrong with it."""
    if "project" not in entry:  # said already
        return f"placements.{name} needs project"
    if "version" in entry and "follows" in entry:
        return f"placements.{name} has a version and follows another; say one of them"
    return Placement(
        name,
        entry["project"],
        entry.get("version", 0),
        tuple(entry.get("waves", [ALL])),
        float(entry["soak_s"]) if "soak_s" in entry else None,
        entry.get("follows", "champion"),
    )


def _bad_rollouts(placements: Iterable[Placement], rollouts: frozenset[str]) -> Iterator[str]:
    """Waves without a rollout, and a rollout of which nobody could say where it leads."""
    first: dict[str, str] = {}
    for each in placements:
        if each.project in rollouts:
            if (other := first.setdefault(each.project, each.name)) != each.name:
                yield f"placements.{each.name} is of {each.project}, which placements.{other} rolls out"
        elif len(each.waves) > 1 or each.soak_s is not None:
            key = "waves" if len(each.waves) > 1 else "soak_s"
            yield f"placements.{each.name}.{key} is for a rollout: say projects.{each.project}.rollout = true"


def _triggers(tables: Mapping[str, Mapping[str, Any]], mistakes: list[str]) -> dict[str, Trigger]:
    """Schedules and triggers by their name, which is one among both."""
    found: dict[str, Trigger] = {}
    for table, read in (("schedules", _schedule), ("triggers", _trigger)):
        for name, entry in tables[table].items():
            if not is_name(name):
                mistakes.append(f"{table}.{name} is no name: {NAMES}")
                continue
            if name in found:
                mistakes.append(f"{table}.{name} has the name of a schedule")
            found[name] = read(name, entry)
            if wrong := mistake(found[name]):
                mistakes.append(f"{table}.{name} {wrong}")
    return found


def _schedule(name: str, entry: Mapping[str, Any]) -> Trigger:
    days = tuple(day for day in DAYS if day in entry.get("days", DAYS))
    return replace(_limited(name, entry), at=entry.get("at", ""), days=days, every=entry.get("every", ""))


def _trigger(name: str, entry: Mapping[str, Any]) -> Trigger:
    own = ("on", "metric", "above", "rows", "machines", "share", "for_s")
    said = {key: entry[key] for key in own if key in entry}
    kinds = tuple(kind for kind in KINDS if kind in entry.get("kinds", KINDS[:1]))
    limited = _limited(name, {"cooldown_s": COOLDOWN_S, "budget": BUDGET, **entry})
    return replace(limited, **{"on": ON[0], **said}, kinds=kinds)


def _limited(name: str, entry: Mapping[str, Any]) -> Trigger:
    budget = msgspec.convert(entry["budget"], Budget) if "budget" in entry else None
    return Trigger(
        name,
        entry.get("again", ""),
        cooldown_s=float(entry.get("cooldown_s", 0.0)),
        budget=budget,
        quiet=entry.get("quiet", ""),
        approval=entry.get("approval", False),
    )


def _bad_cohorts(cohorts: Mapping[str, Iterable[str]]) -> list[str]:
    wrong = [f"cohorts.{name} cannot be called so" for name in cohorts if name == ALL or not is_name(name)]
    inner = [
        f"cohorts.{name}.members names {each!r}, which is a cohort or every node; name sites and nodes"
        for name, members in cohorts.items()
        for each in members
        if each in cohorts or each == ALL
    ]
    return wrong + inner


def desired_schema() -> dict[str, Any]:
    """A file of the directory as JSON Schema, for editors."""
    return schema(DESIRED, "the desired state of a fleet")


# --- what is there ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Listed:
    """A release that nodes may take: signed, or to be. ``where``: nodes and sites, none: every node."""

    project: str
    version: int
    digest: str
    where: tuple[str, ...] = ()
    path: str = ""


@dataclass(frozen=True)
class Has:
    """What a node said of one release: since when it holds it (epoch s), or why it was refused."""

    since: float
    refused: str = ""


@dataclass(frozen=True)
class Trained:
    """A run of a project that nobody has released, and that the cloud began by itself: ``why``.

    ``state``: what becomes of it, one of `TRAINED`; ``said`` in words, as which gate failed where.
    """

    project: str
    run: str
    why: str
    state: str
    said: str = ""


#: What may become of a run that the cloud began by itself.
TRAINED = {
    "ready": "is released next",
    "waits": "waits for a second person",
    "refused": "is not released",
    "stopped": "is not released",
    "same": "taught nothing new",
}


@dataclass(frozen=True)
class Rolled:
    """What the rollouts of a project have come to.

    ``newest``: the newest version of all; ``live``: that of the last one that is done, and ``before`` of the
    one done before it; ``going``: of the one that goes on; ``last``: of the last one, whatever became of it;
    0: none.
    """

    newest: int = 0
    live: int = 0
    before: int = 0
    going: int = 0
    last: int = 0


@dataclass(frozen=True)
class Reality:
    """What is there. ``catalogue``: project -> version -> digest; ``nodes``: node -> its site.

    ``champions``, ``challengers``: project -> version.

    ``held``: node -> digest -> what it said. ``listed`` is what is published. ``rolled``: by project.
    """

    fleet: str
    nodes: Mapping[str, str] = field(default_factory=dict)
    catalogue: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    champions: Mapping[str, int] = field(default_factory=dict)
    challengers: Mapping[str, int] = field(default_factory=dict)
    listed: tuple[Listed, ...] = ()
    held: Mapping[str, Mapping[str, Has]] = field(default_factory=dict)
    triggers: Mapping[str, Trigger] = field(default_factory=dict)
    trained: tuple[Trained, ...] = ()
    rolled: Mapping[str, Rolled] = field(default_factory=dict)
