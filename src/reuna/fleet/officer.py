"""The officer of a fleet on one machine: whoever made the fleet signs the policies of its sites.

FLEET/officer/officer.key    signs them; lies here because every place is the same person's
FLEET/NODE/policy.toml       one for each fog and edge, with ``policy.sig``

On real sites the officers keep their keys elsewhere and sign by hand: `reuna policy sign`,
`reuna code approve`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from reuna.adapters.files import replace_file
from reuna.adapters.policy_store import PolicyStore, read_policy
from reuna.adapters.trust_keys import new_key, read_key, write_key
from reuna.core.errors import KeyProblem, SettingsError
from reuna.fleet.policy import code_entry, overview, sign_file, starter
from reuna.trust.policy import CodeEntry, Signers
from reuna.trust.policy_text import parse
from reuna.trust.publish import PrivateKey

NAME = "officer"
DAYS = 180  #: that an approval of code holds
_SERIAL = re.compile(r"^serial = (\d+)", re.MULTILINE)


def make_officer(folder: Path) -> PrivateKey:
    """A new key in a fleet's folder, not locked."""
    path = key_file(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_key(path, new_key(), None)
    return read_key(path, None)


def key_file(folder: Path) -> Path:
    """Where a fleet's officer key lies, if it lies here."""
    return folder / NAME / f"{NAME}.key"


def give_policy(
    place: Path, state: Path, key: PrivateKey, preset: str, site: str, fleet: str, fog: str, over: str = ""
) -> Path:
    """A signed policy for one node, which is told who signs it. The path of ``policy.toml``.

    ``over``: the fog that ``fog`` stands under, '' for the cloud.
    """
    signers = {NAME: key.public_key().public_bytes_raw().hex()}
    file = place / "policy.toml"
    text = starter(preset, site, _today(), fleet=fleet, fog=fog, over=over, signers=signers)
    replace_file(file, text.encode(), 0o644)
    sign_file(file, key)
    PolicyStore(file, state / "policy").pin(site, Signers(1, signers))
    return file


def approve(file: Path, key: PrivateKey, digest: str, by: str = NAME) -> bool:
    """Let a site's policy allow a bundle, and sign it; False when it was allowed already.

    Raises `SettingsError`, `KeyProblem`.
    """
    allowed, today = read_policy(file).code.allow, _today()
    if any(entry.digest == digest and entry.until >= today for entry in allowed):
        return False
    entry = CodeEntry(digest, (by,), today + timedelta(days=DAYS))
    _rewrite(file, key, lambda text: text + code_entry(entry))
    return True


def approve_as_signer(file: Path, key: PrivateKey, digest: str) -> dict[str, Any]:
    """As `approve`, by the name that the policy has for this key; the policy's `overview` afterwards.

    Code that is allowed already is left as it is, so that nobody signs what they were not shown.
    Raises `SettingsError`, `KeyProblem` for a key that the policy does not name.
    """
    own = key.public_key().public_bytes_raw().hex()
    names = [name for name, public in read_policy(file).signers.keys.items() if public == own]
    if not names:
        raise KeyProblem(
            f"{file.name} names no officer with this key", "See who signs it: `reuna policy show`."
        )
    approve(file, key, digest, names[0])
    return overview(file, time.time())


def amend(file: Path, key: PrivateKey, old: str, new: str) -> None:
    """Change a policy's text and sign it. Raises `SettingsError` when there is nothing to change."""
    if old not in file.read_text(encoding="utf-8"):
        raise SettingsError(f"{file} does not say {old!r}")
    _rewrite(file, key, lambda text: text.replace(old, new))


def _rewrite(file: Path, key: PrivateKey, change: Callable[[str], str]) -> None:
    text = file.read_text(encoding="utf-8")
    raised = _SERIAL.sub(lambda found: f"serial = {int(found[1]) + 1}", change(text), count=1)
    parse(raised, file.name)
    replace_file(file, raised.encode(), 0o644)
    sign_file(file, key)


def _today() -> date:
    return datetime.now(UTC).date()
