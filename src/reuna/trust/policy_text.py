"""From the text of a ``policy.toml`` to a `Policy`, with all mistakes at once and their lines.

>>> parse('format = "reuna/policy/v1"\\nsite = "mill-3"\\nserial = 0\\nflwos = []', "policy.toml")
Traceback (most recent call last):
    ...
reuna.core.errors.SettingsError: policy.toml line 3: serial is 0, must be a whole number from 1 on
policy.toml line 4: flwos is no key of a policy; did you mean flows?
policy.toml: valid is missing: the days on which the policy holds
policy.toml: signers is missing: who must sign this policy and the next
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from datetime import date
from operator import itemgetter
from typing import Any

from reuna.core.errors import SettingsError
from reuna.core.foreign import shown
from reuna.trust.policy import (
    KINDS,
    MAX_POLICY,
    Budget,
    Code,
    CodeEntry,
    FlowRule,
    LedgerSettings,
    Limits,
    Policy,
    Signers,
    Source,
    Tensors,
    Validity,
    Window,
)
from reuna.trust.policy_keys import SECTIONS, WORDS, Key, is_word

NEXT = "Correct each line named above; `reuna policy show FILE` reads it again."
MAX_ENTRIES = 1000  #: of one list or table
LARGEST_NUMBER = 1e300
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
UNITS = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}

Path = tuple[str | int, ...]
_SIZE = re.compile(r"(\d{1,15}) ?([A-Za-z]{0,3})")
_WINDOW = re.compile(r"([A-Z][a-z]{2})(?:-([A-Z][a-z]{2}))? (\d\d):(\d\d)-(\d\d):(\d\d)")
_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,64}")
_HEADER = re.compile(r"\s*(\[\[?)([^\[\]]+)\]\]?\s*(?:#.*)?")
_ASSIGNED = re.compile(r'\s*([A-Za-z0-9_."-]+)\s*=')


def parse(text: str, name: str) -> Policy:
    """The policy in a file's text; ``name`` stands in complaints. Raises `SettingsError` with all of them."""
    if len(text.encode("utf-8", "surrogatepass")) > MAX_POLICY:
        raise SettingsError(f"{name} is longer than {MAX_POLICY} bytes, which no policy is", NEXT)
    try:
        tree = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also a number of a million digits
        raise SettingsError(f"{name} is not valid TOML: {error}", NEXT) from error
    reader = _Reader(name, lines_of(text))
    values = reader.table((), "", tree)
    reader.cross_check(tree, values)
    if reader.mistakes:
        raise SettingsError("\n".join(line for _, line in sorted(reader.mistakes, key=itemgetter(0))), NEXT)
    return _policy(values)


class _Reader:
    """Walks a file by `SECTIONS` and collects what is wrong."""

    def __init__(self, name: str, lines: dict[Path, int]) -> None:
        self.mistakes: list[tuple[int, str]] = []
        self._name = name
        self._lines = lines

    def complain(self, path: Path, what: str) -> None:
        """Note a mistake, with the line of the nearest thing that has one."""
        near = path
        while near and near not in self._lines:
            near = near[:-1]
        line = self._lines.get(near)
        where = f"{self._name} line {line}" if line else self._name
        self.mistakes.append((line or 10**9, f"{where}: {what}"))

    def table(self, path: Path, section: str, found: Any) -> dict[str, Any]:
        """The known keys of a table; the others are mistakes."""
        keys = {key.name: key for key in SECTIONS[section]}
        if not isinstance(found, dict):
            self.complain(path, f"{show(path)} is {shown(found, 60)}, expected a table")
            return {}
        for each in found:
            if each not in keys:
                import difflib  # nobody who makes no mistake needs it

                near = difflib.get_close_matches(str(each), keys, n=1, cutoff=0.6)
                hint = f"; did you mean {show((*path, near[0]))}?" if near else ""
                self.complain((*path, each), f"{show((*path, each))} is no key of a policy{hint}")
        for key in keys.values():
            if key.required and key.name not in found:
                self.complain(path, f"{show((*path, key.name))} is missing: {key.help}")
        return {
            name: self.value((*path, name), f"{section}.{name}".lstrip("."), key, found[name])
            for name, key in keys.items()
            if name in found
        }

    def value(self, path: Path, section: str, key: Key, found: Any) -> Any:
        """One value as the records want it; None after a complaint."""
        if key.kind == "table":
            return self.table(path, section, found)
        if key.kind in ("tables", "names"):
            return self._several(path, section, key, found)
        converted = _convert(key.kind, found)
        if converted is None:
            self.complain(path, f"{show(path)} is {shown(found, 60)}, expected {WORDS[key.kind]}")
            return None
        wrong = key.check(converted) if key.check else ""
        if wrong:
            self.complain(
                path,
                f"{show(path)} is {shown(found, 60)}, {wrong}"
                if not isinstance(found, list)
                else f"{show(path)} {wrong}",
            )
            return None
        return tuple(converted) if isinstance(converted, list) else converted

    def _several(self, path: Path, section: str, key: Key, found: Any) -> Any:
        wanted = list if key.kind == "tables" else dict
        if not isinstance(found, wanted) or len(found) > MAX_ENTRIES:
            self.complain(path, f"{show(path)} must be {WORDS[key.kind]}, of at most {MAX_ENTRIES}")
            return wanted()
        if isinstance(found, list):
            return [self.table((*path, number), section, each) for number, each in enumerate(found)]
        one = SECTIONS[f"{section}.*"]
        for each in found:
            if not is_word(each):
                self.complain((*path, each), f"{show(path)} has {each!r:.80}, which is no name")
        if one[0].name == "*":
            return {name: self.value((*path, name), section, one[0], each) for name, each in found.items()}
        return {name: self.table((*path, name), f"{section}.*", each) for name, each in found.items()}

    # --- what belongs together -------------------------------------------------------------------

    def cross_check(self, tree: dict[str, Any], values: dict[str, Any]) -> None:
        """Mistakes between keys that are each right."""
        self._check_signers(values.get("signers") or {})
        valid = values.get("valid") or {}
        if valid.get("from") and valid.get("until") and valid["from"] > valid["until"]:
            self.complain(("valid", "until"), "valid.until is before valid.from")
        recipients = values.get("recipients") or {}
        for number, flow in enumerate(values.get("flows") or []):
            self._check_flow(("flows", number), flow, recipients)
        signers = (values.get("signers") or {}).get("keys") or {}
        for number, entry in enumerate((values.get("code") or {}).get("allow") or []):
            self._known(("code", "allow", number, "approved_by"), entry.get("approved_by"), signers, "signer")

    def _check_signers(self, signers: dict[str, Any]) -> None:
        """No keys at all is a draft, which nobody can sign and no node accepts."""
        keys, threshold = signers.get("keys") or {}, signers.get("threshold")
        if keys and threshold and threshold > len(keys):
            self.complain(
                ("signers", "threshold"), f"signers.threshold is {threshold}, but there are {len(keys)} keys"
            )
        owner: dict[str, str] = {}
        for name, key in keys.items():
            if key and owner.setdefault(key, name) != name:
                self.complain(("signers", "keys", name), f"{owner[key]} and {name} have the same key")

    def _check_flow(self, path: Path, flow: dict[str, Any], recipients: dict[str, Any]) -> None:
        kind, to = flow.get("kind"), flow.get("to") or ()
        self._known((*path, "to"), to, recipients, "recipient")
        for key in SECTIONS["flows"]:
            if kind in KINDS and key.name in flow and key.only and kind not in key.only:
                self.complain(
                    (*path, key.name),
                    f"{show((*path, key.name))} means nothing for {kind}: it is for {', '.join(key.only)}",
                )
        if kind == "raw" and to:
            self.complain((*path, "to"), f"{show((*path, 'to'))} must be empty: rows of data never leave")
        for name in to if kind == "window" else ():
            if "/gateway/" not in str(recipients.get(name, "/gateway/")):
                self.complain(
                    (*path, "to"),
                    f"{show((*path, 'to'))} names {name}: a window may go to the site's own fog alone",
                )
        for kinds, needed in ((("model_update", "statistic"), "protection"), (("metric",), "names")):
            if kind in kinds and to and needed not in flow:
                self.complain(path, f"{show((*path, needed))} is missing: a rule for {kind} must state it")

    def _known(self, path: Path, names: Any, known: dict[str, Any], what: str) -> None:
        for name in names or ():
            if name not in known:
                self.complain(path, f"{show(path)} names {name!r:.80}, which is no {what} of this policy")


# --- values --------------------------------------------------------------------------------------


def _convert(kind: str, found: Any) -> Any:
    """The value as its kind, None when it is none: true is no number, a time of day no date."""
    plain = type(found)
    if kind in ("texts", "windows"):
        return _list(kind, found)
    if kind == "bytes" and plain is str:
        return _size(found)
    if kind == "number" and plain in (int, float):
        return float(found) if abs(found) < LARGEST_NUMBER else None
    wanted = {"text": str, "whole": int, "bytes": int, "date": date}
    return found if plain is wanted.get(kind) else None


def _list(kind: str, found: Any) -> Any:
    if type(found) is not list or len(found) > MAX_ENTRIES or not all(type(each) is str for each in found):
        return None
    if kind == "texts":
        return found
    windows = [_window(each) for each in found]
    return None if None in windows else windows


def _size(found: str) -> int | None:
    match = _SIZE.fullmatch(found)
    return int(match[1]) * UNITS[match[2]] if match and match[2] in UNITS else None


def _window(text: str) -> Window | None:
    match = _WINDOW.fullmatch(text)
    if match is None or match[1] not in DAYS or (match[2] or match[1]) not in DAYS:
        return None
    first, last = DAYS.index(match[1]), DAYS.index(match[2] or match[1])
    days = tuple(sorted((first + step) % 7 for step in range((last - first) % 7 + 1)))
    hours, minutes = (int(match[3]), int(match[5])), (int(match[4]), int(match[6]))
    start, end = hours[0] * 60 + minutes[0], hours[1] * 60 + minutes[1]
    if max(minutes) > 59 or start >= 1440 or end > 1440 or start == end:
        return None
    return Window(days, start, end)


def show(path: Path) -> str:
    """A path as a person writes it: ``flows[2].to``; lists are counted from 1."""
    said = ""
    for part in path:
        name = part if isinstance(part, int) or _PLAIN.fullmatch(part) else repr(part)[:60]
        said += f"[{name + 1}]" if isinstance(name, int) else f".{name}"
    return said.lstrip(".")


def lines_of(text: str) -> dict[Path, int]:
    """Where each table and key of a TOML text stands: path -> line, counted from 1.

    Keys inside of inline tables have no entry of their own.
    """
    found: dict[Path, int] = {}
    table: Path = ()
    counts: dict[Path, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.fullmatch(line):
            table = _resolved(tuple(_parts(header[2])), counts, header[1] == "[[")
            found.setdefault(table, number)
        elif assigned := _ASSIGNED.match(line):
            found.setdefault((*table, *_parts(assigned[1])), number)
    return found


def _parts(dotted: str) -> Iterator[str]:
    for part in dotted.split("."):
        yield part.strip().strip("\"'")


def _resolved(names: tuple[str, ...], counts: dict[Path, int], new: bool) -> Path:
    """A header's path with the number of the list entry that it is or is inside of."""
    path: Path = ()
    for position, name in enumerate(names):
        path = (*path, name)
        if new and position == len(names) - 1:
            counts[path] = counts.get(path, -1) + 1
        if path in counts:
            path = (*path, counts[path])
    return path


# --- records -------------------------------------------------------------------------------------


def _policy(values: dict[str, Any]) -> Policy:
    """Values that were found right, as records."""
    valid, code = values["valid"], dict(values.get("code", {}))
    code["allow"] = tuple(CodeEntry(**entry) for entry in code.get("allow", []))
    return Policy(
        format=values["format"],
        site=values["site"],
        serial=values["serial"],
        valid=Validity(valid["from"], valid["until"]),
        signers=Signers(**values["signers"]),
        recipients=values.get("recipients", {}),
        sources={name: Source(**source) for name, source in values.get("sources", {}).items()},
        flows=tuple(_flow(flow) for flow in values.get("flows", [])),
        code=Code(**code),
        limits=Limits(**values.get("limits", {})),
        kill_switch=values.get("kill_switch", ""),
        ledger=LedgerSettings(**values.get("ledger", {})),
    )


def _flow(values: dict[str, Any]) -> FlowRule:
    rest = {name: value for name, value in values.items() if name not in ("tensors", "dp")}
    budget = Budget(**values["dp"]) if "dp" in values else None
    return FlowRule(**rest, tensors=Tensors(**values.get("tensors", {})), dp=budget)
