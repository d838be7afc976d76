"""``reuna lineage`` and ``reuna where``: where a model comes from, and what is in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reuna.cli.output import as_json
from reuna.cli.release import Project, Releases
from reuna.cli.runs import Json, Runs, find, read

if TYPE_CHECKING:
    from reuna.core.errors import ReunaError
    from reuna.fleet.lineage import Reports
    from reuna.fleet.release import Catalogue

UNKNOWN = "unknown"
Asked = Annotated[
    str | None,
    typer.Option("--fleet", help="As of `reuna run`: its cloud says which nodes hold what. Else: unknown."),
]


def lineage(
    which: Annotated[
        str | None,
        typer.Argument(
            metavar="RELEASE|RUN",
            help="A release's number or alias, or a run, or the start of its name. Without one the champion, "
            "else the newest release, else the newest run.",
        ),
    ] = None,
    project: Project = Path(),
    releases: Releases = Path("releases"),
    runs: Runs = Path("runs"),
    fleet: Asked = None,
    json: Json = False,
) -> None:
    """Show where a model comes from: sites, data, code, approvals, nodes that hold it, what it replaced."""
    reports = reported(fleet)
    found = _of(which, project, releases, runs, reports)
    if json:
        as_json(found)
    else:
        for line in lines(found):
            typer.echo(line)


def component(
    named: Annotated[
        str, typer.Option("--component", metavar="NAME[@VERSION]", help="A package, as numpy or numpy@2.1.0.")
    ],
    project: Project = Path(),
    releases: Releases = Path("releases"),
    runs: Runs = Path("runs"),
    builds: Annotated[
        Path | None, typer.Option("--builds", help="Folder with builds (default: PROJECT/dist).")
    ] = None,
    fleet: Asked = None,
    json: Json = False,
) -> None:
    """Find a component in the bills of materials of all releases and builds; status 1 when it is in none."""
    from reuna.core.errors import Corrupted
    from reuna.fleet.components import Component
    from reuna.fleet.components import find as search

    unread: list[str] = []

    def left(file: Path, error: ReunaError) -> None:
        unread.append(str(file))
        typer.echo(f"left out: {file}: {error}", err=True)

    wanted, reports = Component.parse(named), reported(fleet)
    found = search(wanted, releases, [builds or project / "dist", runs], reports, left)
    if json:
        as_json(found)
    else:
        for row in found:
            typer.echo(_where_line(row))
    if found:
        return
    if unread:
        raise Corrupted(
            f"{named} is in nothing that could be read, but {', '.join(unread)} could not",
            "Get a good copy of that, or move it away, and ask again.",
        )
    typer.echo(f"{named} is in no release below {releases} and in no build", err=True)
    raise typer.Exit(1)


def reported(fleet: str | None) -> Reports | None:
    """What the nodes of a fleet say that they hold; None when no fleet is named."""
    if fleet is None:
        return None
    from reuna.cli.run import open_at
    from reuna.fleet.holders import reports

    return reports(open_at(fleet)[1])


def _of(
    which: str | None, project: Path, releases: Path, runs: Path, reports: Reports | None
) -> dict[str, Any]:
    from reuna.fleet.lineage import of_release, of_run
    from reuna.fleet.release import ALIASES, Catalogue

    if which in ALIASES or (which or "").isdigit():
        return of_release(catalogue_of(project, releases), which or "", reports)
    if which is None and (found := _default(project, releases)):
        return of_release(*found, reports)
    result = read(find(runs, which))
    return of_run(Catalogue.of(releases, result["project"]), result, reports)


def _default(project: Path, releases: Path) -> tuple[Catalogue, str | int] | None:
    """The champion, else the newest release, of the project's catalogue if there is one."""
    if not releases.is_dir():
        return None
    catalogue = catalogue_of(project, releases)
    if "champion" in catalogue.aliases():
        return catalogue, "champion"
    return (catalogue, catalogue.versions()[-1]) if catalogue.versions() else None


def catalogue_of(project: Path, releases: Path) -> Catalogue:
    """The releases of the project in a folder."""
    from reuna.fleet.open_project import open_settings
    from reuna.fleet.release import Catalogue

    return Catalogue.of(releases, open_settings(project, []).name)


# --- for people ------------------------------------------------------------------------------------


def lines(found: Mapping[str, Any]) -> list[str]:
    """A lineage as people read it."""
    from reuna.core.foreign import readable

    parts = (_what, _sites, _code, _approved, _released, _held, _replaced)
    return [readable(line) for part in parts for line in part(found)]


def _what(found: Mapping[str, Any]) -> list[str]:
    release = found["release"]
    said = f"release {release['version']}{_called(release)}, {release['digest']}" if release else ""
    return [
        f"{found['project']}: {said or 'not released'}",
        f"run         {found['run']}, {found['rounds']} rounds ({found['strategy']}), model {found['model']}",
    ]


def _sites(found: Mapping[str, Any]) -> list[str]:
    text = []
    for site in found["sites"]:
        for node in site["nodes"]:
            name = node["node"] if node["node"] == site["site"] else f"{site['site']}/{node['node']}"
            why = site["absent"].get(node["node"], "")
            text.append(f"  {name:<16} {_data(node['data'])}{f'; gave nothing: {why}' if why else ''}")
    return ["sites and data", *text]


def _data(data: Mapping[str, Any] | None) -> str:
    if data is None:
        return f"data {UNKNOWN}"
    samples = f"{data['samples']} samples" if data.get("samples") else f"samples {UNKNOWN}"
    if not data.get("fingerprint"):
        return f"{samples}, fingerprint {UNKNOWN}"
    rows = f" and {data['rows']} rows" if data.get("rows") else ""
    files = f"{data['files']} files of {data['bytes']} bytes{rows}"
    return f"{samples}, {files}, fingerprint {data['fingerprint']}"


def _code(found: Mapping[str, Any]) -> list[str]:
    source = found["source"]
    if source is None:
        return [f"code        {UNKNOWN}"]
    commit = source.get("commit") or UNKNOWN
    dirty = ", with changes that are in no commit" if source.get("dirty") else ""
    remote = f" of {source['remote']}" if source.get("remote") else ""
    build = [f"build       {source['build']}"] if source.get("build") else []
    return [f"commit      {commit}{remote}{dirty}", f"code        {source['code']}", *build]


def _approved(found: Mapping[str, Any]) -> list[str]:
    approvals = found["approvals"]
    if approvals is None:
        return [f"approved by {UNKNOWN}"]
    text = [
        f"  {each['node']:<16} {', '.join(each['by'])}, until {each['until']}; policy {each['serial']} of "
        f"{each['site']}, signed by {', '.join(each['signed_by']) or 'nobody'}"
        for each in approvals.get("code", [])
    ]
    unseen = approvals.get("unseen", [])
    text += [f"  {node:<16} {UNKNOWN}: its policy is on its own machine" for node in unseen]
    return ["code approved", *(text or [f"  {UNKNOWN}"]), *_role(approvals), *_run(approvals)]


def _released(found: Mapping[str, Any]) -> list[str]:
    """The second person's word on the release, where the project asked for one."""
    said = found["released"]
    if said is None:
        return []
    who = f"asked for by {said['by']}, approved by {said['decided_by']}"
    return [f"release     {who} (proposal {said['id']})"]


def _role(approvals: Mapping[str, Any]) -> list[str]:
    role = approvals.get("code_role")
    if not role:
        return [f"code role   {UNKNOWN}"]
    keys = ", ".join(f"{key[:12]}…" for key in role["signed_by"])
    return [f"code role   list {role['version']}, signed by {keys}"]


def _run(approvals: Mapping[str, Any]) -> list[str]:
    run = approvals.get("run")
    if not run:
        return ["run         no second person was asked for it, or it is not known here"]
    who = f"asked for by {run['asked_by']}, approved by {run['approved_by']}"
    return [f"run         {who} (proposal {run['proposal']})"]


def _held(found: Mapping[str, Any]) -> list[str]:
    if found["held_by"] is None:
        why = "ask a fleet with --fleet" if found["release"] else "no release of it is in the catalogue"
        return [f"held by     {UNKNOWN}: {why}"]
    return [f"held by     {', '.join(each['node'] for each in found['held_by']) or 'no node that reports'}"]


def _replaced(found: Mapping[str, Any]) -> list[str]:
    if found["release"] is None:
        return []
    if not found["replaces"]:
        return ["replaced    nothing: no champion was named when it was made"]
    return [f"replaced    {_before(each)}" for each in found["replaces"]]


def _before(each: Mapping[str, Any]) -> str:
    if each["version"] is None:
        return f"{each['digest']}, which is not in the catalogue"
    return f"release {each['version']}{_called(each)}, run {each['run']}, {each['digest'][:16]}…"


def _called(release: Mapping[str, Any]) -> str:
    return f" ({', '.join(release['aliases'])})" if release["aliases"] else ""


def _where_line(row: Mapping[str, Any]) -> str:
    from reuna.core.foreign import readable

    component = f"{row['component']} {row['version']}"
    if row["what"] == "build":
        return readable(f"{component}  build of {row['project']}  {row['digest'][:16]}  {row['file']}")
    held = row["held_by"]
    nodes = UNKNOWN if held is None else ", ".join(each["node"] for each in held) or "no node that reports"
    named = f"release {row['project']} {row['release']}{_called(row)}"
    return readable(f"{component}  {named}  {row['digest'][:16]}  held by: {nodes}")
