"""`reuna.adapters.toml_file` and `reuna.core.settings`: the files and flags of every place."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fuzz.kit import attempt, scratch
from reuna.adapters.toml_file import read_toml
from reuna.cloud.settings import CLOUD
from reuna.core.errors import SettingsError
from reuna.core.project import PROJECT, project_settings
from reuna.core.settings import Option, Source, flags, parse
from reuna.edge.settings import EDGE
from reuna.fog.settings import FOG
from reuna.learn.strategies import TAKES

TABLES: tuple[tuple[Option, ...], ...] = (PROJECT, CLOUD, FOG, EDGE)


def seeds() -> Iterator[bytes]:
    yield b'[project]\nname = "pump"\n[strategy]\nserver_rate = 1\n[train]\nrate = 0.5\n[data]\nx = [1]\n'
    yield b'[listen]\nport = 9000\nhost = "::"\n[tls]\nkey = 1979-05-27T07:32:00Z\n'
    yield b"round.quorum=0.5\nrun.seed=1\ntrain.rate=1e3\ndata.flag=true\n"
    yield b"[round]\nquorum = 0x" + b"f" * 4_000 + b"\n[run]\nseed = " + b"9" * 400
    yield b"[project]\nname = " + b"9" * 5_000
    yield b"[train]\nx = " + b"[" * 2_000 + b"]" * 2_000
    for table in TABLES:
        yield "\n".join(f"{option.name} = {_value(option)}" for option in table).encode()


def _value(option: Option) -> str:
    return {str: '"a"', bool: "true", list: '["a"]', dict: "{a = 1}"}.get(option.kind, "1")


def check(data: bytes) -> None:
    path = scratch() / "reuna.toml"
    path.write_bytes(data)
    source = attempt(lambda: read_toml(path), SettingsError)
    said = attempt(lambda: flags(data.decode("utf-8", "replace").splitlines()), SettingsError)
    for found in filter(None, (source, said)):
        attempt(lambda found=found: project_settings([found], TAKES), SettingsError)  # type: ignore[misc]
        for table in TABLES:
            attempt(_parsing(table, found), SettingsError)


def _parsing(table: tuple[Option, ...], source: Source) -> Callable[[], object]:
    return lambda: parse(table, [source], free=("train", "data"))
