"""The command line: one small file per noun, each loading only what it needs."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from copy import copy
from typing import Annotated

import typer
from typer.main import get_command_name
from typer.models import CommandInfo

from reuna.cli import (
    backup,
    build,
    code,
    contract,
    desired,
    evidence,
    ledger,
    mlflow,
    people,
    places,
    policy,
    project,
    release,
    rollout,
    run,
    runs,
    sink,
    site,
    source,
    storage,
    triggers,
    trust,
    watch,
    where,
)
from reuna.cli.answers import answers
from reuna.cli.doctor import doctor
from reuna.cli.export import export
from reuna.cli.gate import gate
from reuna.cli.labels import labels
from reuna.cli.lineage import component, lineage
from reuna.cli.predict import predict
from reuna.cli.sandbox import sandbox
from reuna.cli.study import study
from reuna.cli.test import run_tests
from reuna.fleet.ending import in_order

app = typer.Typer(
    name="reuna",
    help="Train machine-learning models where the data is made: edge, fog and cloud.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def _version(value: bool) -> None:
    if value:
        from reuna import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Log everything, and show where in the code an error arose.")
    ] = False,
) -> None:
    """Options of every command; they stand before its name."""
    if debug:
        logging.basicConfig(stream=sys.stderr, level=logging.DEBUG)


app.command()(run.demo)
app.command()(project.init)
app.command()(project.check)
app.command(name="test")(run_tests)
app.command()(study)
app.command()(project.schema)
app.command(name="run")(run.run)
app.command()(run.stop)
app.command()(run.resume)
app.command()(run.retry)
app.command()(run.fetch)
app.command()(runs.show)
app.command(name="runs")(runs.list_runs)
app.command(name="triggers")(triggers.list_triggers)
app.command()(runs.diff)
app.command()(runs.replay)
app.command()(places.up)
app.command()(places.cloud)
app.command()(places.fog)
app.command()(places.edge)
app.command()(backup.backup)
app.command()(backup.restore)
app.command()(backup.upgrade)
app.add_typer(storage.app, name="storage")
app.add_typer(source.app, name="source")
app.add_typer(sink.app, name="sink")
app.command()(doctor)
app.add_typer(watch.app, name="watch")
app.command()(sandbox)
app.command()(export)
app.command()(gate)
app.command()(predict)
app.command()(answers)
app.command()(labels)
app.command()(desired.plan)
app.command()(desired.apply)
app.add_typer(rollout.app, name="rollout")
app.command()(rollout.rollback)
release.app.command()(where.where)
app.command()(lineage)
app.command(name="where")(component)
app.add_typer(release.app, name="release")
app.add_typer(evidence.app, name="evidence")
app.add_typer(mlflow.app, name="mlflow")
app.add_typer(contract.app, name="contract")
app.add_typer(policy.app, name="policy")
app.add_typer(code.app, name="code")
app.add_typer(build.app, name="build")
app.add_typer(ledger.app, name="ledger")
app.command()(site.join)
app.add_typer(site.site, name="site")
app.add_typer(site.node, name="node")
app.add_typer(trust.app, name="trust")
app.add_typer(people.people, name="people")
app.command()(people.login)
app.command()(people.logout)
app.command()(people.whoami)
app.add_typer(people.proposals, name="proposals")
app.add_typer(people.audit, name="audit")


def main() -> None:
    """Entry of the ``reuna`` command."""
    in_order(_asked(sys.argv[1:]))


def _asked(words: Sequence[str]) -> typer.Typer:
    """The noun that a command line begins with, alone: to make all of them takes longer than most commands.

    For help, options before the noun and mistakes it is the whole.
    """
    commands = [each for each in app.registered_commands if _name(each) in words[:1]]
    groups = [each for each in app.registered_groups if each.name in words[:1]]
    if not commands and not groups:
        return app
    part = copy(app)
    part.registered_commands, part.registered_groups = commands, groups
    return part


def _name(command: CommandInfo) -> str:
    return command.name or get_command_name(command.callback.__name__ if command.callback else "")
