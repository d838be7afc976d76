"""Who the worker is to the kernel: no network of the machine's, no rights, where possible no known user."""

from __future__ import annotations

import os
import pwd
import signal
import sys
from pathlib import Path

from reuna.adapters.sandbox.kernel import (
    CAP_DAC_READ_SEARCH,
    CLONE_NEWNET,
    CLONE_NEWUSER,
    LINUX,
    PR_SET_KEEPCAPS,
    PR_SET_NO_NEW_PRIVS,
    PR_SET_PDEATHSIG,
    NotReached,
    call,
    keep_capabilities,
    prctl,
    threads,
)

#: Users that no file and no account belongs to: the range systemd keeps for such.
FIRST_USER, LAST_USER = 61_184, 65_519


def leave_network() -> None:
    """An empty network namespace, for a user other than root inside a user namespace of its own.

    Raises `NotReached`.
    """
    if os.geteuid() == 0:
        _unshare(CLONE_NEWNET)
        return
    uid, gid = os.geteuid(), os.getegid()
    if threads() > 1:
        raise NotReached("threads run already; a user namespace is taken before the first")
    _unshare(CLONE_NEWUSER | CLONE_NEWNET)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)
    keep_capabilities(0)


def leave_network_whole() -> None:
    """`leave_network` for a process that goes on as it is where that is refused: a child tries it first.

    What the process opened before stays open, and what it starts later is where it is itself. Raises
    `NotReached`.
    """
    if not LINUX:
        raise NotReached(f"it needs Linux, this is {sys.platform}")
    if threads() > 1:
        raise NotReached("threads run already; each would keep the machine's network")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, _refusal().encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8", errors="replace") as answer:
        refusal = answer.read()
    os.waitpid(child, 0)
    if refusal:
        raise NotReached(refusal)
    leave_network()


def _refusal() -> str:
    """Why this process cannot leave the network, empty when it just did."""
    try:
        leave_network()
    except (NotReached, OSError) as error:
        return str(error) or type(error).__name__
    return ""


def counted_apart() -> bool:
    """Whether the system counts this process's tasks alone: by a user or a user namespace of its own."""
    if FIRST_USER <= os.geteuid() <= LAST_USER:
        return True
    try:
        with open("/proc/self/uid_map", encoding="ascii") as file:
            return file.read().split() == [str(os.geteuid()), str(os.geteuid()), "1"]
    except OSError:
        return False


def become_nobody(folder: str) -> None:
    """From root to a user that is nobody's, who owns ``folder`` and may read as before.

    What it may read is for Landlock to say, so one capability stays: the node's files are root's.
    Raises `NotReached`.
    """
    if os.geteuid() != 0:
        raise NotReached("only root can take another user")
    uid = unused_user()
    try:
        os.chown(folder, uid, uid)
        prctl(PR_SET_KEEPCAPS, 1)
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        keep_capabilities(1 << CAP_DAC_READ_SEARCH)
    finally:
        end_with_parent_again()


def unused_user() -> int:
    """A user id without account and without a process. Raises `NotReached`."""
    taken = {_owner(name) for name in os.listdir("/proc") if name.isdigit()}
    count = LAST_USER - FIRST_USER + 1
    for step in range(count):
        uid = FIRST_USER + (os.getpid() + step) % count
        if uid not in taken and not _has_account(uid):
            return uid
    raise NotReached("every user id of the range is taken")


def no_new_privileges() -> None:
    """No program it could start would give it rights."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)


def end_with_parent_again() -> None:
    """A change of user made the kernel forget that it ends with its parent."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _unshare(flags: int) -> None:
    try:
        call("unshare", flags)
    except OSError as error:
        raise NotReached(f"the kernel refuses it: {error.strerror}") from error


def _owner(pid: str) -> int:
    try:
        return Path(f"/proc/{pid}").stat().st_uid
    except OSError:  # it ended meanwhile
        return -1


def _has_account(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True
