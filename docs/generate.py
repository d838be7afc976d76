"""Write the reference pages that come from code: errors, settings, commands; and figures from results.

``python docs/generate.py`` writes them; with ``--check`` it names those that are out of date and
ends with status 1. Nothing here is a second list: the pages are the tables themselves. In ``performance.md``
only what stands between two marks is written, from results of benchmarks that are kept in ``docs/figures``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import typer

from reuna.adapters.operator_api.metrics import OF_NODES
from reuna.cli import app
from reuna.cloud.settings import CLOUD
from reuna.core import errors, figures
from reuna.core.desired import DESIRED, desired_schema
from reuna.core.project import OWN_SECTIONS, PROJECT, project_schema
from reuna.core.settings import REQUIRED, Between, OneOf, Option
from reuna.core.sink_settings import SINKS
from reuna.core.source_settings import SOURCES
from reuna.edge.settings import EDGE
from reuna.fog.settings import FOG
from reuna.learn.strategies import STRATEGIES
from reuna.trust import policy_keys
from reuna.trust.policy import KINDS
from reuna.trust.policy_sign import REJECTIONS
from reuna.trust.requests import REASONS, Request
from reuna.wire.openapi import ROUTES, STATUSES, openapi, parameters

DOCS = Path(__file__).parent
REFERENCE = DOCS / "reference"
sys.path.insert(0, str(DOCS.parent))  # the benchmarks are no installed package
NOTE = "<!-- Written by docs/generate.py; change the code instead and run `make docs`. -->"
WORDS = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    list: "list",
    dict: "table",
}
#: title, where values come from, table
TABLES: tuple[tuple[str, str, tuple[Option, ...]], ...] = (
    ("Project", "`reuna.toml`, then `REUNA_…`, then `--set NAME=VALUE`", PROJECT),
    ("Cloud", "`cloud.toml`, then `REUNA_CLOUD_…`, then `--set NAME=VALUE`", CLOUD),
    ("Fog", "`fog.toml`, then `REUNA_FOG_…`, then `--set NAME=VALUE`", FOG),
    ("Edge", "`edge.toml`, then `REUNA_EDGE_…`, then `--set NAME=VALUE`", EDGE),
    ("Sources", "`sources.toml`", SOURCES),
    ("Sinks", "`sinks.toml`", SINKS),
    ("Desired state", "the TOML files of [a directory in git](../how-to/gitops.md), together", DESIRED),
)


def pages() -> dict[Path, str]:
    """Path and text of every generated page."""
    return {
        REFERENCE / "errors.md": "\n".join(_errors()),
        REFERENCE / "settings.md": "\n".join(_settings()),
        REFERENCE / "commands.md": "\n".join(_commands()),
        REFERENCE / "metrics.md": "\n".join(_metrics()),
        REFERENCE / "policy.md": "\n".join(_policy()),
        REFERENCE / "api.md": "\n".join(_api()),
        REFERENCE / "reuna.schema.json": json.dumps(project_schema(), indent=2) + "\n",
        REFERENCE / "fleet.schema.json": json.dumps(desired_schema(), indent=2) + "\n",
        DOCS / "performance.md": _performance(),
    }


def tree(root: type[errors.ReunaError]) -> Iterator[type[errors.ReunaError]]:
    """``root`` and all below it, those above first, in the order they are written."""
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


def _errors() -> Iterator[str]:
    yield from (NOTE, "# Errors", "")
    yield "Every error that Reuna raises on purpose says what happened to which thing and what to do next."
    yield "The code names its kind and is never used again for another; the exit status tells whose"
    yield "fault it is."
    for kind in tree(errors.ReunaError):
        if kind.__base__ is errors.ReunaError:
            yield from ("", f"## {_first(kind)}", "")
            yield from (f"`{kind.__name__}`, exit status {kind.exit_status}.", "")
            yield from ("| code | name | what happened | what to do next |", "|---|---|---|---|")
        elif kind is not errors.ReunaError:
            step = kind.default_next_step
            said = "as the message says" if step == errors.ReunaError.default_next_step else _cell(step)
            yield f"| `{kind.code}` | `{kind.__name__}` | {_cell(_first(kind))} | {said} |"
    yield from ("", "## Why a contribution is refused", "")
    yield "A parent that refuses a contribution (`R303`) gives one of these words. It is counted and shown,"
    yield "and costs only the node that sent it."
    yield from ("", "| reason | meaning |", "|---|---|")
    for reason, meaning in sorted(errors.REFUSALS.items()):
        yield f"| `{reason}` | {_cell(meaning)} |"
    yield from ("", "## Why a node gave nothing", "")
    yield "A node that cannot take part says so in one of these lines and in no other words, so that nothing"
    yield "its code or data says leaves with it. What happened in full stands in that node's own log."
    yield from ("", "| code | words |", "|---|---|")
    for code, words in errors.ABSENCES.items():
        yield f"| `{code}` | {_cell(words)} |"
    yield from ("", "## Why a node does not trust what came down", "")
    yield "A node that does not accept metadata, a target or a plan (`R308`) names one of these words."
    yield "Nothing is taken over; what it trusted before stays."
    yield from ("", "| reason | meaning |", "|---|---|")
    for reason, meaning in sorted(errors.DISTRUST.items()):
        yield f"| `{reason}` | {_cell(meaning)} |"
    yield from ("", "## Why a node is not admitted", "")
    yield "A token, a request for a certificate or a renewal that is refused (`R309`) gets one of these"
    yield "words, on the machine and in the log of the cloud or fog."
    yield from ("", "| reason | meaning |", "|---|---|")
    for reason, meaning in sorted(errors.ADMISSION.items()):
        yield f"| `{reason}` | {_cell(meaning)} |"
    yield ""


def _settings() -> Iterator[str]:
    yield from (NOTE, "# Settings", "")
    yield "One table for each file. A later source wins over an earlier one; all mistakes are reported"
    yield "together, each with where it came from. A variable is the name in capitals with `_` for `.`:"
    yield "`REUNA_FOG_LISTEN_HOST` is the fog's `listen.host`."
    yield from ("", "A mistake in a file is told at its line, with what is allowed there:", "", "```text")
    yield "error: reuna.toml:7:1: strategy.rounds is '20', expected a whole number; write it without quotes"
    yield "error: reuna.toml:9:1: strategy.momentun is not a setting; did you mean strategy.momentum?"
    yield "next:  Correct each line named above; `reuna check` validates the file again.  [R101]"
    yield from ("```", "")
    yield "Editors complete and check `reuna.toml` by its [JSON Schema](reuna.schema.json),"
    yield "which `reuna schema` prints. A project of `reuna init` has it in `.reuna.schema.json`, named in"
    yield "the first line of its `reuna.toml`; after an upgrade: `reuna schema > .reuna.schema.json`."
    yield "The files of a desired state have [another one](fleet.schema.json): `reuna schema fleet`."
    for title, sources, table in TABLES:
        yield from ("", f"## {title}", "", f"From {sources}.", "")
        yield from ("| name | value | default | meaning |", "|---|---|---|---|")
        for option in table:
            yield f"| `{option.name}` | {_value(option)} | {_default(option)} | {_cell(option.help)} |"
            yield from _keys(option.name, option.each)
    yield from ("", "## Strategies", "", "What is not set under `[strategy]` is the strategy's own; what the")
    yield "chosen one does not use is refused. To try another one once, take back what is set for the first:"
    yield from ("`--set strategy.name=fedavg --set strategy.momentum=`.", "")
    yield from ("| name | settings and their defaults |", "|---|---|")
    for each in STRATEGIES.values():
        said = ", ".join(f"`{name}` {value:g}" for name, value in {**each.server, **each.client}.items())
        yield f"| `{each.name}` | {said} |"
    own = " and ".join(f"`[{section}]`" for section in OWN_SECTIONS)
    yield from ("", f"In `reuna.toml` the sections {own} are the project's own: any key with a plain value")
    yield "goes to its `load` and `learner`, under a name that no other of them has. `[contract]`,"
    yield from (
        "`[signals]`, `[windows]` and `[label]` are",
        "[the data contract](../how-to/data-contract.md).",
        "",
    )


def _policy() -> Iterator[str]:
    yield from (NOTE, "# Policy", "")
    yield "Every key of a site's `policy.toml`; a key that is not here is refused. How to write one is in"
    yield "[Decide what leaves your site](../how-to/site-policy.md)."
    yield from ("", "## Kinds of flow", "", "| kind | what it is |", "|---|---|")
    for kind, meaning in KINDS.items():
        yield f"| `{kind}` | {_cell(meaning)} |"
    for section, keys in policy_keys.SECTIONS.items():
        title = "Top of the file" if not section else f"`{section.replace('*', 'NAME')}`"
        yield from (
            "",
            f"## {title}",
            "",
            "| key | value | needed | for kinds | meaning |",
            "|---|---|---|---|---|",
        )
        for key in keys:
            name = key.name.replace("*", "NAME")
            only, needed = ", ".join(key.only), "yes" if key.required else ""
            yield f"| `{name}` | {policy_keys.WORDS[key.kind]} | {needed} | {only} | {_cell(key.help)} |"
    yield from _policy_answers()


def _policy_answers() -> Iterator[str]:
    yield from ("", "## Why something may not leave", "")
    yield "The egress answers `allow`, `deny` or `wait`, and names the rule and one of these words."
    yield from ("", "| reason | meaning |", "|---|---|")
    yield from (f"| `{reason}` | {_cell(meaning)} |" for reason, meaning in sorted(REASONS.items()))
    yield from ("", "## Why a policy is not accepted", "", "| reason | meaning |", "|---|---|")
    yield from (f"| `{reason}` | {_cell(meaning)} |" for reason, meaning in sorted(REJECTIONS.items()))
    yield from ("", "## A line for `reuna policy simulate`", "")
    yield "One JSON object a line, in the order in which they were asked. `kind`, `to`, `bytes` and `now` are"
    yield "needed, any other field may be left out."
    yield from ("", _cell((Request.__doc__ or "").partition("reads.")[2]), "")
    yield "Fields: " + ", ".join(f"`{name}`" for name in Request.__struct_fields__) + "."
    yield from (
        "",
        "```json",
        '{"kind": "metric", "to": "spiffe://line-4/cloud/cloud", "bytes": 90, "now": 1795600000}',
    )
    yield from ("```", "")


def _api() -> Iterator[str]:
    yield from (NOTE, "# The operator's API", "")
    yield "HTTPS at the cloud's `listen.api_port`, with a client certificate of role `operator`; any other is"
    yield "answered 403. The same in the words of OpenAPI 3.1 is served at `/openapi.json`."
    yield from ("", "| request | what it does | takes | answers | refuses with |", "|---|---|---|---|---|")
    described = openapi()["paths"]
    for route in ROUTES:
        said = described[route.path][route.method]
        takes = [f"`{name}`" for name in (*parameters(route), *route.query)]
        takes += [_body(said["requestBody"])] if route.takes is not None else []
        refuses = ", ".join(map(str, (403, *route.refuses)))
        yield (
            f"| `{route.method.upper()} {route.path}` | {_cell(route.summary)} | {', '.join(takes)} "
            f"| {_body(said['responses']['200'])} | {refuses} |"
        )
    yield from ("", "| status | meaning |", "|---|---|")
    yield from (f"| {status} | {_cell(meaning)} |" for status, meaning in STATUSES.items())
    yield from (
        "",
        "What is refused is answered with `code`, `message` and `next_step`, see [Errors](errors.md).",
    )
    for name, schema in openapi()["components"]["schemas"].items():
        if name in {"RunSpec", "Event"}:
            needed = set(schema.get("required", ()))
            yield from ("", f"## {name}", "", "| field | value | needed |", "|---|---|---|")
            for field, each in schema["properties"].items():
                yield f"| `{field}` | {_type(each)} | {'yes' if field in needed else ''} |"
    yield ""


def _body(said: dict[str, Any]) -> str:
    ((kind, content),) = said["content"].items()
    return "bytes" if "octet" in kind else _type(content["schema"])


def _type(schema: dict[str, Any]) -> str:
    """A JSON schema in a few words."""
    if "$ref" in schema:
        return f"`{schema['$ref'].rpartition('/')[2]}`"
    if schema.get("maxProperties") == 0:
        return "nothing"
    if "properties" in schema:
        return ", ".join(f"`{name}`" for name in schema["properties"])
    if "anyOf" in schema:
        return " or ".join(_type(each) for each in schema["anyOf"])
    inner = schema.get("items") or schema.get("additionalProperties")
    return f"{schema.get('type', 'any')} of {_type(inner)}" if inner else str(schema.get("type", "any"))


def _keys(name: str, keys: tuple[Option, ...]) -> Iterator[str]:
    """Keys of the tables that a setting holds, and of the tables in these."""
    for key in keys:
        default = f" {_default(key)}" if key.default else ""
        yield f"| `{name}.NAME.{key.name}` | {_value(key)} |{default} | {_cell(key.help)} |"
        yield from _keys(f"{name}.NAME.{key.name}", key.each)


def _metrics() -> Iterator[str]:
    yield from (
        NOTE,
        "# Metrics",
        "",
        "What `/metrics` tells Prometheus; [how to use it](../how-to/monitor.md#prometheus-and-grafana).",
    )
    for title, found in (
        ("A fog and an edge", figures.OF_PLACES),
        ("An edge", figures.OF_EDGES),
        ("A fog", figures.OF_FOGS),
    ):
        yield from (
            "",
            f"## {title}",
            "",
            "| series | kind | labels beside `node` | what |",
            "|---|---|---|---|",
        )
        for each in found:
            labels = ", ".join(f"`{name}`" for name in each.labels)
            yield f"| `{each.name}` | {each.kind} | {labels} | {_cell(each.help)} |"
    ends = ", ".join(f"{end:g}" for end in figures.BOUNDS)
    yield from ("", f"A histogram's buckets end at {ends} s.", "", "## The cloud", "")
    yield from (
        "For each project of each node, with the labels `node`, `site` and `project`; all are gauges. "
        "What a site keeps has none.",
        "",
        "| series | what |",
        "|---|---|",
    )
    for name, (what, _) in OF_NODES.items():
        yield f"| `{name}` | {_cell(what)} |"
    yield from (
        "| `reuna_signal_moved` | By how many times its usual distance, for each `signal` |",
        "| `reuna_node_seen_timestamp_seconds` | When a node was heard last (`node` alone) |",
        "| `reuna_alarms` | Alarms that go on, by `kind` and `acknowledged` alone |",
    )


def _commands() -> Iterator[str]:
    group = typer.main.get_command(app)
    context = click.Context(group, info_name="reuna")
    yield from (NOTE, "# Commands", "", str(group.help))
    for name, command in sorted(vars(group)["commands"].items()):
        for words, each in _with_inner(name, command):
            yield from _command(words, each, context)
    yield from (
        "",
        "Exit status 0: done; 1: a fault of ours, or what `reuna test` or `reuna contract` was to find;",
        "2 to 5: see [Errors](errors.md); 130: stopped with Ctrl-C.",
        "",
    )


def _with_inner(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """A command, or those of a group by their whole name."""
    inner = vars(command).get("commands")
    if inner is None:
        yield name, command
        return
    for below, each in sorted(inner.items()):
        yield f"{name} {below}", each


def _command(name: str, command: Any, context: click.Context) -> Iterator[str]:
    yield from ("", f"## reuna {name}", "", " ".join((command.help or "").split()), "")
    below = click.Context(command, info_name=name, parent=context)
    usage = " ".join(("reuna", name, *command.collect_usage_pieces(below)))
    yield from ("```text", usage, "```")
    rows = [row for parameter in command.params if (row := _parameter(parameter))]
    if rows:
        yield from ("", "| what | default | meaning |", "|---|---|---|", *rows)


def _parameter(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        name = parameter.metavar or str(parameter.name).upper()
    else:
        name = ", ".join((*parameter.opts, *parameter.secondary_opts))
    default = parameter.default
    if isinstance(default, bool):
        default = parameter.opts[0] if default else None
    said = "" if default is None or callable(default) else f"`{default}`"
    return f"| `{name}` | {'required' if parameter.required else said} | {_cell(parameter.help or '')} |"


def _value(option: Option) -> str:
    """Kind, unit and what is allowed."""
    words = [WORDS[option.kind], *([option.unit] if option.unit else [])]
    if isinstance(option.check, Between):
        words.append(f"{option.check.low:g} to {option.check.high:g}")
    if isinstance(option.check, OneOf):
        words.append(" or ".join(f"`{each}`" for each in option.check.allowed))
    return ", ".join(words)


def _default(option: Option) -> str:
    if option.default is REQUIRED:
        return "required"
    if option.default is None and option.name.startswith("strategy."):
        return "the strategy's"
    if option.default is None or option.default == "":
        return ""
    return f"`{str(option.default).lower()}`" if option.kind is bool else f"`{option.default}`"


def _performance() -> str:
    """The page with each of its figures from the result files."""
    from benchmarks.figures import blocks

    text = (DOCS / "performance.md").read_text(encoding="utf-8")
    for name, lines in blocks(DOCS / "figures").items():
        begin, end = (f"<!-- {word} {name}: written by docs/generate.py -->" for word in ("begin", "end"))
        before, found, rest = text.partition(begin)
        _, also, after = rest.partition(end)
        if not (found and also):
            raise ValueError(f"docs/performance.md has no place for {name}")
        text = "\n".join((before + begin, "", *lines, "", end)) + after
    return text


def _first(kind: type) -> str:
    """First sentence of a class's docstring, without its full stop."""
    return (kind.__doc__ or kind.__name__).strip().splitlines()[0].removesuffix(".")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("``", "`")


def main(arguments: list[str]) -> int:
    """Write the pages, or with ``--check`` only say which are out of date."""
    stale = [
        path
        for path, text in pages().items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]
    if "--check" in arguments:
        for path in stale:
            sys.stderr.write(f"error: docs/{path.relative_to(DOCS)} is out of date; run make docs\n")
        return 1 if stale else 0
    for path in stale:
        path.write_text(pages()[path], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
