"""A PostgreSQL server as a plant would run it: password by SCRAM, data on the disk, started and killed.

The server refuses to run as root, so it then runs as Debian's user ``postgres``. Where there is none, or no
server, tests that ask for one are skipped; in CI, which installs it, they fail.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

USER, PASSWORD, NAME = "reuna", "four grey herons", "reuna"


def binary(name: str) -> str | None:
    found = shutil.which(name)
    places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return found or (str(places[-1]) if places else None)


def _account() -> dict[str, Any]:
    """Whom the server runs as."""
    if os.geteuid() != 0:
        return {}
    try:
        found = pwd.getpwnam("postgres")
    except KeyError:
        return {"missing": True}
    return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}


def require() -> None:
    why = "no PostgreSQL server here: apt-get install postgresql" if binary("initdb") is None else ""
    if "missing" in _account():
        why = "PostgreSQL refuses root, and there is no user postgres"
    if why:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(why)


class PostgresqlServer:
    """One server; `stop` and `start` again keep its data and its port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self._account = _account()
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        secret = folder / "secret"
        secret.write_text("owner of the whole server\n")
        if self._account:
            for path in (folder, secret):
                os.chown(path, self._account["user"], self._account["group"])
        self._run("initdb", "-D", str(self.data), "-U", "owner", f"--pwfile={secret}", "-A", "scram-sha-256",
                  "--locale=C.UTF-8", "--no-sync")  # fmt: skip
        self.start()
        self.sql("postgres", f"CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'")
        self.fresh()

    def fresh(self, name: str = NAME) -> None:
        """An empty database, owned by the user."""
        self.sql("postgres", f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        self.sql("postgres", f"CREATE DATABASE {name} OWNER {USER}")

    def url(self, name: str = NAME, user: str = USER) -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/{name}"

    def sql(self, name: str, statement: str) -> list[Any]:
        """As the server's owner."""
        import psycopg

        said = (
            f"host=127.0.0.1 port={self.port} dbname={name} user=owner password='owner of the whole server'"
        )
        with psycopg.connect(said, autocommit=True) as connection:
            found = connection.execute(statement)  # type: ignore[call-overload]
            return found.fetchall() if found.description else []

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        self._run(
            "pg_ctl",
            "-D",
            str(self.data),
            "-w",
            "-t",
            "60",
            "-l",
            str(self.folder / "log"),
            "-o",
            options,
            "start",
        )

    def stop(self) -> None:
        """At once, as in a power cut: clients lose their connections."""
        self._run("pg_ctl", "-D", str(self.data), "-w", "-m", "immediate", "stop")

    def end(self) -> None:
        if (self.data / "postmaster.pid").exists():
            self.stop()

    def _run(self, name: str, *words: str) -> None:
        command = binary(name)
        assert command is not None
        done = subprocess.run([command, *words], cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              stdin=subprocess.DEVNULL, timeout=120, env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
                              **self._account) if name != "pg_ctl" else _to_file(command, words, self.folder, self._account)  # fmt: skip
        assert done.returncode == 0, done.stdout.decode(errors="replace")


def _to_file(command: str, words: tuple[str, ...], folder: Path, account: dict[str, Any]) -> Any:
    """The server keeps the descriptors it was started with: a pipe would never end."""
    with (folder / "said").open("w+b") as said:
        done = subprocess.run([command, *words], cwd="/", stdout=said, stderr=said, stdin=subprocess.DEVNULL,
                              timeout=120, env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}, **account)  # fmt: skip
        said.seek(0)
        done.stdout = said.read()
    return done


@contextmanager
def running() -> Iterator[PostgresqlServer]:
    require()
    folder = Path(mkdtemp(prefix="reuna-pg-", dir="/tmp"))  # pytest's folders are closed to other users
    server = PostgresqlServer(folder)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PGPASSWORD", PASSWORD)
            yield server
    finally:
        server.end()
        shutil.rmtree(folder, ignore_errors=True)
