"""What we publish is plain TUF: the reference client takes it over too."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tuf.api.exceptions import DownloadHTTPError, RepositoryError
from tuf.ngclient import FetcherInterface, Updater

from tests.unit.trust.house import House, thing


class FromMemory(FetcherInterface):
    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files

    def _fetch(self, url: str) -> Iterator[bytes]:
        name = url.rpartition("/")[2]
        if name not in self.files:
            raise DownloadHTTPError(name, 404)
        return iter([self.files[name]])


def updater(house: House, folder: Path) -> Updater:
    return Updater(
        str(folder), "mem://fleet/", str(folder), "mem://fleet/", FromMemory(house.files), bootstrap=house.pin
    )


def test_the_reference_client_accepts_a_fleets_metadata_and_targets(tmp_path: Path) -> None:
    house = House(now=float(int(time.time())))
    found = updater(house, tmp_path)
    found.refresh()
    for path in ("releases/pump", "code/detector", "plans/r-1"):
        assert found.get_targetinfo(path) is not None, path


def test_the_reference_client_refuses_what_we_refuse(tmp_path: Path) -> None:
    house = House(now=float(int(time.time())))
    house.listed["targets"].append(thing("releases/evil", "release"))
    house.list("targets", signers=house.signers("code"))
    house.online()
    with pytest.raises(RepositoryError):
        updater(house, tmp_path).refresh()
