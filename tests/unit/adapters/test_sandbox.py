"""The parts of the sandbox: the filter's verdict on each call, the rules, the limits, the level."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import resource
import socket
import struct
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.adapters import sandbox
from reuna.adapters.processes import SILENT
from reuna.adapters.sandbox import (
    EXTRA,
    LEVELS,
    REMEDIES,
    Level,
    Room,
    SandboxLimits,
    identity,
    landlock,
    level_of,
    limits,
    probe,
    seccomp,
    sentence,
    worker_environment,
)
from reuna.adapters.sandbox.kernel import NotReached

PID = 4711
ALLOWED, KILLED = "allowed", "killed"
linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's layers are Linux's")


# --- the filter ------------------------------------------------------------------------------------


def verdict(machine: str, number: int, *arguments: int, audit: int | None = None) -> str | int:
    """What the filter says to a system call: allowed, killed, or the number of an error."""
    steps = seccomp.program(machine, PID)
    words = (number, seccomp.ARCHITECTURES[machine].audit if audit is None else audit, 0)
    data = struct.pack("<IIQ6Q", *words, *arguments, *([0] * (6 - len(arguments))))
    value, at = 0, 0
    while True:
        code, yes, no, k = steps[at]
        at += 1
        match code:
            case seccomp.LOAD:
                (value,) = struct.unpack_from("<I", data, k)
            case seccomp.AND:
                value &= k
            case seccomp.EQUAL:
                at += yes if value == k else no
            case seccomp.ABOVE:
                at += yes if value > k else no
            case seccomp.AT_LEAST:
                at += yes if value >= k else no
            case seccomp.ANY_BIT:
                at += yes if value & k else no
            case seccomp.RETURN:
                return {seccomp.ALLOW: ALLOWED, seccomp.KILL: KILLED}.get(k, k & 0xFFFF)


both = pytest.mark.parametrize(("machine", "column"), [("x86_64", 0), ("aarch64", 1)])


@both
def test_every_call_of_the_list_is_refused_whatever_its_arguments(machine: str, column: int) -> None:
    for name, numbers in seccomp.REFUSED.items():
        if numbers[column] >= 0:
            assert verdict(machine, numbers[column], *[2**64 - 1] * 6) == errno.EPERM, name
            assert verdict(machine, numbers[column], PID) == errno.EPERM, name


@both
def test_calls_that_cannot_be_judged_are_unknown_to_the_kernel(machine: str, column: int) -> None:
    for numbers in seccomp.UNKNOWN.values():
        assert verdict(machine, numbers[column]) == errno.ENOSYS


@both
@given(number=st.integers(0, seccomp.NEWEST), arguments=st.lists(st.integers(0, 2**64 - 1), max_size=6))
def test_a_call_that_no_table_names_is_allowed(
    machine: str, column: int, number: int, arguments: list[int]
) -> None:
    judged = {*seccomp.REFUSED.values(), *seccomp.UNKNOWN.values(), *seccomp.SIGNALS.values()}
    judged |= {seccomp.CLONE, seccomp.SOCKETPAIR, seccomp.IOCTL, seccomp.PRCTL, seccomp.LIMIT}
    judged |= {seccomp.OPEN, seccomp.OPENAT}
    if number not in {numbers[column] for numbers in judged}:
        assert verdict(machine, number, *arguments) == ALLOWED


@both
@given(number=st.integers(seccomp.NEWEST + 1, 2**30 - 1))
def test_a_call_newer_than_the_list_is_unknown(machine: str, column: int, number: int) -> None:
    assert verdict(machine, number) == errno.ENOSYS


def test_the_second_table_of_x86_is_refused_and_a_strange_architecture_ends_the_process() -> None:
    assert verdict("x86_64", seccomp.X32 + 59) == errno.EPERM
    i386 = 0x40000003
    assert verdict("x86_64", 11, audit=i386) == KILLED
    assert verdict("aarch64", 221, audit=0x40000028) == KILLED


@both
def test_threads_can_be_made_and_processes_cannot(machine: str, column: int) -> None:
    clone, sigchld, of_thread = seccomp.CLONE[column], 17, 0x3D0F00  # as the C library asks for a thread
    assert verdict(machine, clone, of_thread) == ALLOWED
    assert verdict(machine, clone, sigchld) == errno.EPERM
    for new in (0x10000000, 0x40000000, 0x00020000, 0x00000080):
        assert verdict(machine, clone, of_thread | new) == errno.EPERM


@both
def test_only_itself_can_be_signalled_and_limited(machine: str, column: int) -> None:
    for numbers in seccomp.SIGNALS.values():
        assert verdict(machine, numbers[column], PID, 9) == ALLOWED
        for other in (1, 0, PID + 1, 2**32 - PID, 2**64 - 1):
            assert verdict(machine, numbers[column], other, 9) == errno.EPERM
    assert verdict(machine, seccomp.LIMIT[column], 0) == ALLOWED
    assert verdict(machine, seccomp.LIMIT[column], PID) == ALLOWED
    assert verdict(machine, seccomp.LIMIT[column], PID + 1) == errno.EPERM


@both
def test_a_pair_of_sockets_is_of_streams(machine: str, column: int) -> None:
    pair, cloexec = seccomp.SOCKETPAIR[column], 0o2000000
    unix = int(socket.AF_UNIX)
    assert verdict(machine, pair, unix, int(socket.SOCK_STREAM) | cloexec) == ALLOWED
    for kind in (socket.SOCK_DGRAM, socket.SOCK_SEQPACKET, socket.SOCK_RAW):
        assert verdict(machine, pair, unix, int(kind) | cloexec) == errno.EPERM
    assert verdict(machine, pair, int(socket.AF_INET), int(socket.SOCK_STREAM)) == errno.EPERM


@both
def test_what_is_opened_to_read_is_not_emptied(machine: str, column: int) -> None:
    for numbers, at in ((seccomp.OPEN, 1), (seccomp.OPENAT, 2)):
        if numbers[column] >= 0:
            before = [0] * at
            assert verdict(machine, numbers[column], *before, os.O_RDONLY | seccomp.O_TRUNC) == errno.EPERM
            for flags in (os.O_RDONLY, os.O_WRONLY | seccomp.O_TRUNC, os.O_RDWR | seccomp.O_TRUNC):
                assert verdict(machine, numbers[column], *before, flags) == ALLOWED


@both
def test_input_is_not_put_into_a_terminal_and_the_end_with_the_parent_stays(
    machine: str, column: int
) -> None:
    for request in (seccomp.TIOCSTI, seccomp.TIOCLINUX):
        assert verdict(machine, seccomp.IOCTL[column], 0, request) == errno.EPERM
    assert verdict(machine, seccomp.IOCTL[column], 0, 0x5401) == ALLOWED
    assert verdict(machine, seccomp.PRCTL[column], seccomp.PR_SET_PDEATHSIG) == errno.EPERM
    assert verdict(machine, seccomp.PRCTL[column], 15) == ALLOWED  # a thread's name


@pytest.mark.parametrize(
    ("machine", "digest"),
    [
        ("x86_64", "eeadbb1a160b00e5"),
        ("aarch64", "6c81ab30963d675b"),
    ],
)
def test_the_filter_changes_only_on_purpose(machine: str, digest: str) -> None:
    steps = seccomp.program(machine, PID)
    assert len(steps) < 4096  # what the kernel takes
    assert max(max(yes, no) for _, yes, no, _ in steps) < 256
    assert hashlib.sha256(seccomp.packed(steps)).hexdigest()[:16] == digest


def test_another_architecture_has_no_filter() -> None:
    with pytest.raises(NotReached, match="no filter for riscv64"):
        seccomp.program("riscv64", PID)


# --- rules and limits ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("abi", "words"),
    [
        (1, [0x1FFF]),
        (2, [0x3FFF]),
        (3, [0x7FFF]),
        (4, [0x7FFF, 3]),
        (5, [0xFFFF, 3]),
        (6, [0xFFFF, 3, 3]),
        (9, [0xFFFF, 3, 3]),
    ],
)
def test_every_right_an_abi_knows_is_taken(abi: int, words: list[int]) -> None:
    data = landlock.ruleset(abi)
    assert list(struct.unpack(f"<{len(data) // 8}Q", data)) == words


def test_only_the_workers_own_folder_can_be_written(tmp_path: Path) -> None:
    room = Room((str(tmp_path / "data"),), str(tmp_path / "made"))
    rights = dict(landlock.wanted(room))
    writers = {path for path, right in rights.items() if right & ~landlock.READ}
    assert writers == {"/dev/null", room.write}
    assert rights[room.read[0]] == landlock.READ
    assert not any(right & (landlock.EXECUTE | landlock.IOCTL_DEV) for right in rights.values())


def test_a_module_path_that_holds_the_nodes_folder_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path), str(tmp_path / "modules"), "/", ""])
    allowed = {path for path, _ in landlock.wanted(Room((), str(tmp_path / "node" / "made")))}
    assert str(tmp_path / "modules") in allowed
    assert not {str(tmp_path), "/", ""} & allowed


def test_the_environment_is_a_list_of_names() -> None:
    made = worker_environment(
        {"SECRET_TOKEN": "s", "PATH": "p", "OMP_NUM_THREADS": "8", "OPENBLAS_CORETYPE": "Zen"}
    )
    assert "SECRET_TOKEN" not in made
    assert (made["PATH"], made["OMP_NUM_THREADS"], made["OPENBLAS_CORETYPE"]) == ("p", "1", "Zen")
    assert SILENT.items() <= made.items(), "what a learner imports tells its makers nothing"


def cgroups(tmp_path: Path, own: str, controllers: str) -> tuple[Path, Path]:
    """A tree as the kernel's, with the process in ``own``."""
    root, membership = tmp_path / "cgroup", tmp_path / "membership"
    (root / own).mkdir(parents=True)
    for folder in (root, *(root / part for part in [own])):
        for name in ("cgroup.controllers", "cgroup.subtree_control"):
            (folder / name).write_text(controllers)
    membership.write_text(f"4:memory:/old\n0::/{own}\n")
    return root, membership


def test_a_cgroup_is_made_with_limits_and_those_left_empty_are_removed(tmp_path: Path) -> None:
    root, membership = cgroups(tmp_path, "edge.service", "cpu memory pids")
    left = root / "edge.service" / f"{limits.PREFIX}1"
    left.mkdir()
    limits.join_cgroup(SandboxLimits(memory_mib=3, processes=7), root, membership)
    made = root / "edge.service" / f"{limits.PREFIX}{os.getpid()}"
    told = {file.name: file.read_text() for file in made.iterdir()}
    assert told == {"memory.max": str(3 << 20), "pids.max": "7", "cgroup.procs": str(os.getpid())}
    assert not left.exists()


def test_without_cgroups_of_version_2_the_reason_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotReached, match="no cgroups of version 2"):
        limits.join_cgroup(SandboxLimits(), tmp_path, tmp_path / "absent")
    root, membership = cgroups(tmp_path, "user.slice/session", "cpu")
    for folder in (root / "user.slice" / "session", root / "user.slice"):
        (folder / "cgroup.subtree_control").unlink(missing_ok=True)
        (folder / "cgroup.subtree_control").mkdir()
    with pytest.raises(NotReached, match="no cgroup with memory and pids"):
        limits.join_cgroup(SandboxLimits(), root, membership)


def test_a_limit_is_never_raised_above_the_hard_one(monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[int, Any] = {}
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (10, 20))
    monkeypatch.setattr(resource, "setrlimit", lambda kind, pair: found.update({kind: pair}))
    limits._limit(1, 15)
    limits._limit(2, 25)
    assert found == {1: (15, 15), 2: (20, 20)}


def test_a_user_id_that_somebody_has_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    first = identity.unused_user()
    assert identity.FIRST_USER <= first <= identity.LAST_USER
    monkeypatch.setattr(identity, "_has_account", lambda uid: uid == first)
    assert identity.unused_user() == first + 1
    monkeypatch.setattr(identity, "_has_account", lambda uid: True)
    with pytest.raises(NotReached, match="taken"):
        identity.unused_user()


# --- the level -------------------------------------------------------------------------------------


def test_a_level_needs_its_layers_and_those_of_the_levels_below() -> None:
    names = tuple(name for level in LEVELS for name in level)
    assert level_of(names, {}).number == 3
    for number, level in enumerate(LEVELS):
        for name in level:
            assert level_of(tuple(set(names) - {name}), {}).number == number


@given(st.sets(st.sampled_from([name for names in (*LEVELS, EXTRA) for name in names])))
def test_one_more_layer_never_lowers_the_level(layers: set[str]) -> None:
    for name in (name for names in LEVELS for name in names):
        assert level_of((*layers, name), {}).number >= level_of(tuple(layers), {}).number


def test_every_layer_has_a_remedy_and_what_is_missing_is_said_up_to_the_minimum() -> None:
    assert set(REMEDIES) == {name for names in (*LEVELS, EXTRA) for name in names}
    level = level_of((), {"limits": "too high", "seccomp": "no filter", "cgroup": "none"})
    assert sentence(level, 1) == "limits (too high)"
    assert sentence(level, 3) == "limits (too high), seccomp (no filter)"


def confined(before: str) -> Level:
    """The level of a process that runs ``before`` and then confines itself."""
    script = f"""
        import encodings.ascii, os, sys, threading
        import msgspec
        from reuna.adapters import sandbox
        from reuna.adapters.sandbox import Room, SandboxLimits, identity, landlock, kernel, seccomp
        folder = sys.argv[1]
        {before}
        level = sandbox.confine(Room((), folder), SandboxLimits())
        os.write(1, msgspec.json.encode(level))
        os._exit(0)
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-P", "-c", textwrap.dedent(script), folder]
        done = subprocess.run(command, env=worker_environment(os.environ), capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return Level(**json.loads(done.stdout))


@linux
def test_a_layer_that_the_kernel_refuses_lowers_the_level_and_says_why() -> None:
    level = confined("identity._unshare = lambda flags: (_ for _ in ()).throw(kernel.NotReached('EPERM'))")
    assert level.number == 1
    assert level.missing["network namespace"] == "EPERM"
    assert "seccomp" in level.layers


@linux
def test_without_landlock_nothing_of_it_is_claimed() -> None:
    level = confined(
        "landlock.abi = lambda: (_ for _ in ()).throw(kernel.NotReached('the kernel has no Landlock'))"
    )
    assert level.number == 2 or "network namespace" in level.missing
    for name in ("landlock files", "landlock network", "landlock scopes"):
        assert level.missing[name] == "the kernel has no Landlock"


@linux
def test_an_old_landlock_confines_files_and_says_what_it_does_not() -> None:
    if landlock.abi() < 1:
        pytest.skip("no Landlock here")
    level = confined("landlock.abi = lambda: 1")
    assert "landlock files" in level.layers
    assert level.missing["landlock network"] == "the kernel's Landlock has ABI 1, this needs 4"


@linux
def test_a_thread_that_runs_already_would_stay_free_so_nothing_is_claimed() -> None:
    level = confined("end = threading.Event(); threading.Thread(target=end.wait, daemon=True).start()")
    assert level.number <= 2
    assert "threads run already" in level.missing["landlock files"]
    assert "threads run already" in level.missing["seccomp"]


@linux
def test_a_variable_that_is_on_no_list_leaves_no_level() -> None:
    level = confined("os.environ['REUNA_TOKEN'] = 's'")
    assert level.number == 0
    assert level.missing["environment"] == "the environment holds REUNA_TOKEN"


@linux
def test_a_user_other_than_root_is_confined_too() -> None:
    if os.geteuid() != 0:
        pytest.skip("the other tests run as that user")
    become = "os.chown(folder, 65534, 65534); os.setgroups([]); os.setresgid(*[65534] * 3); os.setresuid(*[65534] * 3)"
    level = confined(become)
    assert level.missing["own user"] == "only root can take another user"
    if "network namespace" not in level.missing:  # some systems give no user namespace
        assert level.number == (3 if "landlock files" in level.layers else 2)


def test_another_system_reaches_level_1_and_is_told_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sandbox, "LINUX", False)
    monkeypatch.setattr(sandbox.sys, "platform", "darwin")
    monkeypatch.setattr(sandbox, "check_environment", lambda folder: None)
    monkeypatch.setattr(sandbox, "close_descriptors", lambda keep: None)
    monkeypatch.setattr(sandbox, "own_group", lambda: None)
    monkeypatch.setattr(sandbox, "set_limits", lambda *_: None)
    level = sandbox.confine(Room((), str(tmp_path)), SandboxLimits())
    assert level.number == 1
    assert level.missing["seccomp"] == "it needs Linux, this is darwin"


def test_the_probe_tells_the_level_of_this_machine_and_leaves_this_process_free(tmp_path: Path) -> None:
    level = probe()
    assert level.number >= 1
    assert set(level.layers) | set(level.missing) == {name for names in (*LEVELS, EXTRA) for name in names}
    (tmp_path / "written").write_text("free")


def test_a_probe_that_does_not_run_reaches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert probe().number == 0
