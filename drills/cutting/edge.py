"""``python -m drills.cutting.edge SETTINGS FOLDER AT kill|lost JOURNAL``: an edge's agent as it is, on such a disk."""

from __future__ import annotations

import sys
from pathlib import Path

from drills.cutting.disk import Disk
from reuna.fleet import place


def main() -> None:
    settings, folder, at, mode, journal = sys.argv[1:]
    Disk(Path(folder), int(at), mode == "lost", Path(journal)).watch()
    place.main(["edge", "--settings", settings])


if __name__ == "__main__":
    main()
