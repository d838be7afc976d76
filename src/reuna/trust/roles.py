"""The roles of a fleet's metadata, what each may sign, and how long a file of each may be.

    root        offline, k of n   names the keys of every other role
    ├── targets     offline       releases, the roster, policy templates; names the keys of code and plans
    │   ├── code        offline   code bundles, signed by officers
    │   └── plans       online    plans
    ├── snapshot    online        which versions belong together
    └── timestamp   online        what is newest, and what time it is

Roles as in the TUF specification 1.0.31, https://theupdateframework.github.io/specification/.
"""

from __future__ import annotations

import re

import msgspec

OFFLINE = ("root", "targets", "code")
ONLINE = ("timestamp", "snapshot", "plans")
DELEGATED = ("code", "plans")  #: by targets; the others by root

#: Largest file of each role, bytes. Judged before anything is read or decoded.
LIMITS = {
    "root": 256 * 1024,
    "timestamp": 16 * 1024,
    "snapshot": 64 * 1024,
    "targets": 2 * 1024 * 1024,
    "code": 1024 * 1024,
    "plans": 1024 * 1024,
}


#: What a metadata file may be called; nothing else is read from a folder or asked of a peer.
FILE_NAME = re.compile(r"(timestamp|[1-9][0-9]{0,15}\.(root|snapshot|targets|code|plans))\.json")


def file_name(role: str, version: int) -> str:
    """The name under which a version of a role is published."""
    return "timestamp.json" if role == "timestamp" else f"{version}.{role}.json"


class Rule(msgspec.Struct, frozen=True):
    """Which role signs targets of a kind, the folder of their paths, the most bytes of one."""

    role: str
    folder: str
    limit: int


KINDS: dict[str, Rule] = {
    "release": Rule("targets", "releases", 256 * 1024 * 1024),
    "policy-template": Rule("targets", "policy-templates", 256 * 1024),
    "code": Rule("code", "code", 16 * 1024 * 1024),
    "plan": Rule("plans", "plans", 1024 * 1024),
    "roster": Rule("targets", "rosters", 1024 * 1024),
}


def patterns(role: str) -> list[str]:
    """The paths that targets delegates to a role."""
    return [f"{rule.folder}/*" for rule in KINDS.values() if rule.role == role]
