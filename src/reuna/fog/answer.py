"""Releases that answer at the fog: for windows that its edges are unsure of.

    edges ──TLS── gateway ──socket pair── worker (a release with `place = "fog"`, sandboxed, resident)

Which releases those are the fleet's signed metadata says, as at an edge: the stage of a project, else its
newest release that is for this fog; one that does not pass its self-test gives way to the one before. The
site's policy lets its code run, or not. An edge is answered by the tables in the folder of its name, else by
those for all.

What stands does not depend on what edges ask, and how many may wait is bounded: others are refused, and
answer by themselves.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from reuna.adapters.data_folder import SPLITS
from reuna.adapters.files import replace_file, storage_error
from reuna.adapters.trust_store import TrustStore
from reuna.core.errors import DataError, Refused, ReunaError, StorageError, Unreachable, Untrusted
from reuna.core.grid import Rows
from reuna.core.inference import inference
from reuna.core.packed import unpacked
from reuna.core.ports import Blob, Clock, Offload
from reuna.core.second import Doubtful, Opinions, Window, opinion
from reuna.core.units import conversion
from reuna.exchange.predict import Approves, Confines, Held, Predictor, stand
from reuna.trust.metadata import TrustState
from reuna.trust.releases import KEPT, is_for, listed
from reuna.trust.stages import read, staged, stages_for
from reuna.trust.targets import Target, check_bytes, target
from reuna.wire import release as wire

log = logging.getLogger("reuna.inference")
LOOK_S = 1.0  #: between two looks whether other releases are to stand
SHOW_S = 10.0  #: counts alone are shown so often at most
FIRST_S, LAST_S = 2.0, 60.0  #: between two tries at one that does not stand
MOST_WAITING = 32  #: questions at once
MOST_OF_ONE = 2  #: of one edge
FOLDER = "inference"  #: in the fog's state folder
STATUS = "inference.json"  #: in the fog's state folder
EVERYBODY = ""  #: whose tables they are that lie in no edge's folder

#: A release by the digest of its file (`reuna.fog.stock.Stock`).
Get = Callable[[str], Awaitable[Blob | None]]
#: As `stand`; tests have releases that are none.
Start = Callable[[Path, Path, Path, Confines, Approves, Clock], Awaitable[Predictor]]


@dataclass
class Seat:
    """A release in its worker, asked about one window at a time."""

    predictor: Predictor
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    closed: bool = False

    async def close(self) -> None:
        """After the question that it is at."""
        async with self.turn:
            self.closed = True
            await self.predictor.close()


@dataclass(frozen=True)
class Standing:
    """A project's release at this fog. ``seats``: by edge; `EVERYBODY`: those without tables of their own."""

    of: Target
    seats: Mapping[str, Seat]

    async def close(self) -> None:
        for each in self.seats.values():
            await each.close()


@dataclass(frozen=True)
class Place:
    """What of a fog it needs: its name, its state folder, the tables to scale by, how code is confined."""

    name: str
    folder: Path
    data: Path
    confines: Confines


class FogAnswers:
    """The `Adviser` of a fog. ``known``: what its egress has accepted; ``get`` gives a release's file."""

    def __init__(
        self,
        place: Place,
        known: TrustStore,
        get: Get,
        link: Approves,
        clock: Clock,
        offload: Offload,
        ticks: Callable[[], float] = time.monotonic,
        start: Start = stand,
    ) -> None:
        self._begin = start
        self._place = place
        self._known = known
        self._get = get
        self._link = link
        self._clock = clock
        self._offload = offload
        self._ticks = ticks
        self._standing: dict[str, Standing] = {}
        self._passed_over: set[str] = set()  #: digests of what never stands here
        self._failed: dict[str, tuple[float, float]] = {}  #: digest -> not before, and the pause
        self._waiting: Counter[str] = Counter()
        self._counts: dict[str, Counter[str]] = {}
        self._state: TrustState | None = None
        self._read: tuple[int, int] | None = None  #: which state of what was accepted that is
        self._wanted: dict[str, list[Target]] = {}
        self._shown: dict[str, object] = {}
        self._shown_at = -SHOW_S
        self._said = ""

    # --- what stands -----------------------------------------------------------------------------

    async def keep(self) -> None:
        """Have those stand that the fleet wants here, and say so in a file. Until cancelled."""
        try:
            while True:
                try:
                    await self.look()
                    await self._show()
                except (Untrusted, StorageError) as error:
                    self._say(f"{error.code} {error}")
                await self._clock.sleep(LOOK_S)
        finally:
            for each in self._standing.values():
                await each.close()

    async def look(self) -> None:
        """Once. Raises `Untrusted`, `Corrupted`, `DiskFull`."""
        written = await self._offload(self._known.written)
        if written != self._read:
            self._state = await self._offload(self._known.state)
            self._wanted = {} if self._state is None else choices(self._state, self._place.name)
            self._read = written
        before = dict(self._standing)
        for project in before.keys() - self._wanted.keys():
            await self._standing.pop(project).close()
        for project, targets in self._wanted.items():
            await self._choose(project, targets)
        if self._standing != before:
            await self._offload(self._sweep)

    async def _choose(self, project: str, targets: Iterable[Target]) -> None:
        """The first that stands, of those in their order."""
        standing = self._standing.get(project)
        for each in targets:
            if standing is not None and standing.of.sha256 == each.sha256:
                return
            not_before, _ = self._failed.get(each.sha256, (0.0, 0.0))
            if each.sha256 in self._passed_over or self._ticks() < not_before:
                continue
            made = await self._try(each)
            if made is not None:
                self._standing[project] = made
                log.info("answers by %s %d: %s", project, each.number, each.sha256)
                if standing is not None:
                    await standing.close()
                return

    async def _try(self, each: Target) -> Standing | None:
        """A release that stands; None when it is not for fogs, or cannot stand (now)."""
        try:
            if self._state is not None:
                target(self._state, each.path, self._clock.now())  # nothing new once its time is over
            blob = await self._get(each.digest)
            if blob is None:
                raise Unreachable(f"{each.path} is not here yet")
            try:
                return await self._start(each, blob)
            except Untrusted:
                self._passed_over.add(each.sha256)
                raise
        except ReunaError as error:
            why = f"{error.code} {error}"
        pause = min(max(FIRST_S, 2 * self._failed.get(each.sha256, (0.0, 0.0))[1]), LAST_S)
        self._failed[each.sha256] = (self._ticks() + pause, pause)
        self._say(f"{each.project} {each.number} does not stand: {why}")
        return None

    async def _start(self, each: Target, blob: Blob) -> Standing | None:
        """Raises `Untrusted` for what is not as it was signed or fails its self-test, and as `stand`."""
        folder = self._place.folder / FOLDER / each.sha256[:16]
        file = folder / "release"
        if not await self._offload(lambda: _laid_out(each, blob, file)):
            self._passed_over.add(each.sha256)
            return None
        seats: dict[str, Seat] = {}
        try:
            for edge, data in (await self._offload(lambda: tables(self._place.data))).items():
                work = folder / (f"of-{edge}" if edge else "work")
                predictor = await self._begin(file, work, data, self._place.confines, self._link, self._clock)
                seats[edge] = Seat(predictor)
                if why := await predictor.golden():
                    raise Untrusted("mismatch", f"its self-test fails: {why}")
        except BaseException:
            await Standing(each, seats).close()
            raise
        return Standing(each, seats)

    def _sweep(self) -> None:
        """Remove the folders of releases that stand no more."""
        stay = {each.of.sha256[:16] for each in self._standing.values()}
        for folder in (self._place.folder / FOLDER).glob("*"):
            if folder.name not in stay:
                shutil.rmtree(folder, ignore_errors=True)

    # --- what is asked ---------------------------------------------------------------------------

    async def advise(self, peer: str, asked: Doubtful) -> Opinions:
        """See `reuna.core.ports.Adviser`."""
        counts = self._counts.setdefault(peer, Counter())
        try:
            if self._waiting.total() >= MOST_WAITING or self._waiting[peer] >= MOST_OF_ONE:
                raise Refused("full", "this fog is asked about more windows than it can answer")
            self._waiting[peer] += 1
            try:
                found = await self._advise(peer, asked, self._ticks() + asked.within_s)
            finally:
                self._waiting[peer] -= 1
                self._waiting += Counter()  # forget peers at zero
        except Refused as refusal:
            counts[refusal.reason] += 1
            raise
        counts["answered"] += len(found.windows)
        return found

    async def _advise(self, peer: str, asked: Doubtful, deadline: float) -> Opinions:
        standing = self._standing.get(asked.project)
        seat = None if standing is None else standing.seats.get(peer) or standing.seats.get(EVERYBODY)
        if standing is None or seat is None:
            raise Refused("no-model", f"this fog has no release of {asked.project!r:.80} that answers {peer}")
        held, found = seat.predictor.held, []
        every = [rows_for(held, asked, each) for each in asked.windows]
        async with seat.turn:
            for rows in every:
                if seat.closed:
                    raise Refused("no-model", f"the release of {asked.project!r:.80} gives way to another")
                if self._ticks() > deadline:
                    raise Refused("late", "the edge waits for it no more")
                found += [opinion(each) for each in await seat.predictor.answer(rows)]
        return Opinions(standing.of.number, held.digest, tuple(found))

    # --- what is said ----------------------------------------------------------------------------

    def report(self) -> dict[str, object]:
        """What stands, and how often each edge was answered, or refused and why."""
        return {
            "projects": [
                {
                    "project": project,
                    "version": each.of.number,
                    "sha256": each.of.sha256,
                    "tables_of": sorted(each.seats),
                }
                for project, each in sorted(self._standing.items())
            ],
            "edges": {edge: dict(sorted(counts.items())) for edge, counts in sorted(self._counts.items())},
        }

    async def _show(self) -> None:
        """For whoever stands at the fog."""
        told, now = self.report(), self._ticks()
        same = told["projects"] == self._shown.get("projects")
        if told != self._shown and (not same or now - self._shown_at >= SHOW_S):
            file, text = self._place.folder / STATUS, msgspec.json.encode(told)
            await self._offload(lambda: replace_file(file, text, 0o644))
            self._shown, self._shown_at = told, now

    def _say(self, what: str) -> None:
        """In the log, the same once."""
        if what != self._said:
            log.error("%s", what)
        self._said = what


def choices(state: TrustState, name: str) -> dict[str, list[Target]]:
    """By project which releases may stand at a fog of that name, the first before others.

    Raises `Untrusted` (malformed).
    """
    own = [each for each in listed(state) if is_for(each, (name,))]
    stages = stages_for(read(state), own, (name,))
    found: dict[str, list[Target]] = {}
    for each in sorted(own, key=lambda each: -each.number):
        live = staged(stages, each.project).live
        some = found.setdefault(each.project, [])
        if (live is None and len(some) < KEPT) or (live is not None and live.sha256 == each.sha256):
            some.append(each)
    return found


def tables(data: Path) -> dict[str, Path]:
    """Folders of tables by edge: a folder by its name; what lies in ``data`` itself is for `EVERYBODY`.

    Raises `DataError`, `NotUsable`.
    """
    if not data.is_dir():
        raise DataError(f"there is no folder {data}", "Put the tables there that the releases scale by.")
    try:
        inside = sorted(each for each in data.iterdir() if not each.name.startswith("."))
    except OSError as error:
        raise storage_error(error, data) from error
    edges = {each.name: each for each in inside if each.is_dir() and each.name not in SPLITS}
    own = {EVERYBODY: data} if len(edges) < len(inside) else {}
    return own | edges


def rows_for(held: Held, asked: Doubtful, window: Window) -> Rows:
    """The rows of a window as that release takes them, in its units. Raises `Refused` ('windows')."""
    rows, named = unpacked(asked, window), f"{held.about.project} {held.about.version}"
    if rows is None:
        raise Refused("malformed", "a window's cells are not of as many rows as it says")
    if window.count - window.before != held.length or asked.every_s != held.agreed.every_s:
        theirs = f"{window.count - window.before} rows every {asked.every_s:g} s"
        own = f"{held.length} rows every {held.agreed.every_s:g} s"
        raise Refused("windows", f"{named} takes {own}, not {theirs}")
    needless = max(0, rows.before - held.before)  # its rules do not look back so far
    rows, cells = rows.part(needless, rows.count - needless), {}
    for signal in held.agreed.signals:
        if signal.name not in rows.cells:
            continue
        how = conversion(asked.units[signal.name], signal.unit)
        if how is None:
            units = f"{signal.unit}, not in {asked.units[signal.name]!r:.40}"
            raise Refused("windows", f"{named} takes {signal.name} in {units}")
        same, found = how == (1.0, 0.0), rows.cells[signal.name]
        cells[signal.name] = found if same else replace(found, values=found.values * how[0] + how[1])
    return replace(rows, cells=cells)


def _laid_out(each: Target, blob: Blob, file: Path) -> bool:
    """Write the release's file, whole and as it was signed; False for one that is not for fogs."""
    found = wire.decode(check_bytes(each, blob.read(0, each.size + 1)))
    about = found.manifest.about
    if (about.project, about.version) != (each.project, each.number):
        raise Untrusted("mismatch", f"{each.path} is {about.project} {about.version}")
    if inference(wire.settings(found)).place != "fog":
        return False
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise storage_error(error, file.parent) from error
    replace_file(file, blob.read(0, each.size))
    return True
