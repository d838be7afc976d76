"""What hostile project code tries: a learner whose `evaluate` makes one attempt to get out of the worker.

Copied into a project's folder and run by the real worker as any other learner, so it imports nothing
of the drills. An attempt escapes when it returns true; refused it is by an error of the system, or by
finding nothing. ``layers`` are those that stand in its way: with them switched off it must escape,
else the attempt would prove nothing.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Aims = Mapping[str, Any]
#: What a refusal looks like; anything else means that the attempt itself is broken.
REFUSALS = {
    errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EFBIG, errno.EAGAIN, errno.ENOMEM, errno.EXDEV,
    errno.ENETUNREACH, errno.ECONNREFUSED,
}  # fmt: skip
ARM = os.uname().machine == "aarch64"
libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Attempt:
    """``layers`` in its way; whether it takes root to succeed without them; whether that may be shown.

    The network namespace of a user other than root comes with a user namespace, which keeps the
    worker from tracing the node's processes.
    """

    run: Callable[[Aims], bool]
    layers: tuple[str, ...]
    root: bool = False
    safe: bool = True


ATTEMPTS: dict[str, Attempt] = {}


def attempt(
    name: str, *layers: str, root: bool = False, safe: bool = True
) -> Callable[[Callable[[Aims], bool]], Callable[[Aims], bool]]:
    def note(run: Callable[[Aims], bool]) -> Callable[[Aims], bool]:
        ATTEMPTS[name] = Attempt(run, layers, root, safe)
        return run

    return note


def call(x86: int, arm: int, *arguments: Any) -> int:
    """A system call by its number on each architecture; raises OSError."""
    wide = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result = int(libc.syscall(ctypes.c_long(arm if ARM else x86), *wide))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


FILES, USER, CALLS, NET, LIMITS = "landlock files", "own user", "seccomp", "network namespace", "limits"

# --- the network ---------------------------------------------------------------------------------


@attempt("connect over TCP", CALLS, NET, FILES)
def tcp(aims: Aims) -> bool:
    with socket.create_connection(("127.0.0.1", int(aims["tcp"])), timeout=5):
        return True


@attempt("listen on TCP", CALLS, NET, FILES)
def listen(aims: Aims) -> bool:
    with socket.create_server(("127.0.0.1", 0)):
        return True


@attempt("send a UDP datagram", CALLS, NET)
def udp(aims: Aims) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        return sock.sendto(b"rows", ("127.0.0.1", int(aims["udp"]))) == 4


@attempt("open a raw socket", CALLS, USER, NET, root=True)
def raw(aims: Aims) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP):
        return True


@attempt("connect to a unix socket", CALLS)
def unix(aims: Aims) -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(aims["unix"])
        return True


@attempt("connect to an abstract unix socket", CALLS, NET, FILES)
def abstract(aims: Aims) -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect("\0" + aims["abstract"])
        return True


@attempt("send to a unix socket through a pair of its own", CALLS)
def through_a_pair(aims: Aims) -> bool:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        return ours.sendto(b"rows", aims["datagrams"]) == 4


# --- files ---------------------------------------------------------------------------------------


@attempt("read the list of users", FILES)
def passwd(aims: Aims) -> bool:
    return "root" in Path("/etc/passwd").read_text()


@attempt("read the list of users by /proc/self/root", FILES)
def passwd_by_root(aims: Aims) -> bool:
    return "root" in Path("/proc/self/root/etc/passwd").read_text()


@attempt("read the node's private key", FILES)
def key(aims: Aims) -> bool:
    return aims["secret"] in Path(aims["key"]).read_text()


@attempt("read another site's data", FILES)
def other_site(aims: Aims) -> bool:
    return bool(Path(aims["other"], "rows.csv").read_text())


@attempt("read another run's model", FILES)
def other_model(aims: Aims) -> bool:
    return bool(Path(aims["blobs"], "other").read_bytes())


@attempt("read the node's key by a file handle", CALLS, FILES, root=True)
def by_handle(aims: Aims) -> bool:
    handle = (ctypes.c_uint * 34)(128)
    mount = ctypes.c_int()
    place = ctypes.create_string_buffer(aims["key"].encode())
    call(303, 264, -100, place, ctypes.byref(handle), ctypes.byref(mount), 0)
    opened = call(304, 265, os.open(aims["made"], os.O_RDONLY), ctypes.byref(handle), os.O_RDONLY)
    return aims["secret"].encode() in os.read(opened, 1000)


@attempt("read the key by a symbolic link in its own folder", CALLS, FILES)
def symlink(aims: Aims) -> bool:
    link = Path(aims["made"], "link")
    link.symlink_to(aims["key"])
    return aims["secret"] in link.read_text()


@attempt("leave a hard link to the key for its model", CALLS, FILES, USER, root=True)
def hardlink(aims: Aims) -> bool:
    Path(aims["made"], "hard").hardlink_to(aims["key"])
    return True


@attempt("write outside its folder", FILES, USER)
def write_outside(aims: Aims) -> bool:
    Path(aims["outside"], "left").write_text("here")
    return True


@attempt("remove a file outside its folder", FILES, USER)
def remove_outside(aims: Aims) -> bool:
    Path(aims["outside"], "victim").unlink()
    return True


@attempt("overwrite the node's data", FILES, USER)
def overwrite_data(aims: Aims) -> bool:
    Path(aims["data"], "rows.csv").write_text("forged")
    return True


@attempt("empty the node's data while reading it", FILES, USER, CALLS)
def truncate_data(aims: Aims) -> bool:
    os.close(os.open(Path(aims["data"], "rows.csv"), os.O_RDONLY | os.O_TRUNC))
    return True


@attempt("change the model that was lent", FILES, USER)
def change_lent(aims: Aims) -> bool:
    with Path(aims["lent"], "base").open("r+b") as file:
        return file.write(b"forged") == 6


@attempt("change the project's code", FILES, USER)
def change_code(aims: Aims) -> bool:
    Path(__file__).write_text("")
    return True


@attempt("make the key readable for all", CALLS, USER)
def chmod(aims: Aims) -> bool:
    Path(aims["key"]).chmod(0o644)
    return True


@attempt("write a file that is too large", LIMITS)
def file_size(aims: Aims) -> bool:
    with Path(aims["made"], "large").open("wb") as file:
        file.writelines(bytes(1 << 20) for _ in range(2 * int(aims["file_mib"])))
    return True


# --- programs and processes ----------------------------------------------------------------------


@attempt("start a program", CALLS, FILES)
def execute(aims: Aims) -> bool:
    return subprocess.run([sys.executable, "-S", "-c", ""], check=False).returncode == 0


@attempt("start processes without end", CALLS, LIMITS, safe=False)
def fork_bomb(aims: Aims) -> bool:
    made = []
    try:
        for _ in range(2 * int(aims["processes"])):
            made.append(os.fork())
            if made[-1] == 0:
                signal.pause()
                os._exit(0)
        return True
    finally:
        for pid in made:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@attempt("start threads without end", LIMITS)
def thread_bomb(aims: Aims) -> bool:
    end = threading.Event()
    made: list[threading.Thread] = []
    try:
        for _ in range(2 * int(aims["processes"])):
            made.append(threading.Thread(target=end.wait))
            made[-1].start()
    except RuntimeError:  # "can't start new thread"
        made.pop()
        return False
    else:
        return True
    finally:
        end.set()
        for thread in made:
            thread.join()


@attempt("take all memory", LIMITS)
def memory(aims: Aims) -> bool:
    try:
        return np.empty(2 * int(aims["memory_mib"]) << 20, np.uint8).size > 0
    except MemoryError:
        return False


@attempt("trace a process of the node", CALLS, FILES, USER, NET)
def ptrace(aims: Aims) -> bool:
    seize = 0x4206
    return call(101, 117, seize, int(aims["neighbour"]), 0, 0) == 0


@attempt("signal the agent", CALLS, FILES, USER)
def signal_parent(aims: Aims) -> bool:
    os.kill(os.getppid(), signal.SIGWINCH)  # which does nothing to who gets it
    return True


@attempt("kill a process of the node", CALLS, FILES, USER)
def kill(aims: Aims) -> bool:
    os.kill(int(aims["victim"]), signal.SIGKILL)
    return True


@attempt("read the agent's environment", FILES, USER, NET)
def parent_environment(aims: Aims) -> bool:
    return b"=" in Path(f"/proc/{os.getppid()}/environ").read_bytes()


@attempt("read the agent's memory by /proc", FILES, USER, NET)
def parent_memory(aims: Aims) -> bool:
    with open(f"/proc/{os.getppid()}/mem", "rb", buffering=0) as file:
        file.seek(int(aims["address"]))
        return file.read(len(aims["secret"])) == aims["secret"].encode()


class _Span(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


@attempt("read the agent's memory by process_vm_readv", CALLS, FILES, USER, NET)
def vm_read(aims: Aims) -> bool:
    found = ctypes.create_string_buffer(len(aims["secret"]))
    here = _Span(ctypes.addressof(found), len(found))
    there = _Span(int(aims["address"]), len(found))
    call(310, 270, os.getppid(), ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
    return found.raw == aims["secret"].encode()


@attempt("take a descriptor out of the agent", CALLS, FILES, USER, NET)
def pidfd_getfd(aims: Aims) -> bool:
    return call(438, 438, call(434, 434, os.getppid(), 0), 0, 0) >= 0


@attempt("read a secret of the environment", "environment")
def environment(aims: Aims) -> bool:
    seen = Path("/proc/self/environ").read_bytes() + repr(os.environ).encode()
    return aims["secret"].encode() in seen


@attempt("read through a descriptor that was left open", "descriptors")
def inherited(aims: Aims) -> bool:
    for number in range(3, 256):
        try:
            if aims["secret"].encode() in os.pread(number, 1000, 0):
                return True
        except OSError:
            continue
    return False


@attempt("live on when the agent is gone", CALLS)
def outlive(aims: Aims) -> bool:
    return call(157, 167, 1, 0, 0, 0, 0) == 0  # PR_SET_PDEATHSIG: none


# --- doors into the kernel -----------------------------------------------------------------------


@attempt("take a user namespace", CALLS)
def user_namespace(aims: Aims) -> bool:
    return call(272, 97, 0x10000000) == 0


@attempt("join the agent's network namespace", CALLS, FILES, USER, root=True)
def join_namespace(aims: Aims) -> bool:
    return call(308, 268, os.open(f"/proc/{os.getppid()}/ns/net", os.O_RDONLY), 0) == 0


@attempt("mount a file system", CALLS, FILES, USER, root=True)
def mount(aims: Aims) -> bool:
    place = ctypes.create_string_buffer(aims["made"].encode())
    name = ctypes.create_string_buffer(b"tmpfs")
    call(165, 40, name, place, name, 0, 0)
    return call(166, 39, place, 0) == 0


@attempt("become root again", CALLS, USER, root=True)
def become_root(aims: Aims) -> bool:
    os.setresuid(0, 0, 0)
    return True


@attempt("use a keyring", CALLS)
def keyring(aims: Aims) -> bool:
    get_id, of_process = 0, -2
    return call(250, 219, get_id, of_process, 1) != 0


@attempt("set up io_uring", CALLS)
def io_uring(aims: Aims) -> bool:
    return call(425, 425, 1, ctypes.create_string_buffer(120)) >= 0


@attempt("load a BPF map", CALLS, USER, root=True)
def bpf(aims: Aims) -> bool:
    attributes = (ctypes.c_uint * 32)(2, 4, 4, 1)  # an array of one 4-byte value
    return call(321, 280, 0, ctypes.byref(attributes), ctypes.sizeof(attributes)) >= 0


@attempt("watch memory with userfaultfd", CALLS, USER, root=True)
def userfaultfd(aims: Aims) -> bool:
    return call(323, 282, 0) >= 0


@attempt("measure with perf", CALLS, USER, root=True)
def perf(aims: Aims) -> bool:
    attributes = (ctypes.c_uint * 32)(1, 128, 0)  # a counter of the processor's clock
    return call(298, 241, ctypes.byref(attributes), 0, -1, -1, 0) >= 0


# --- the project ---------------------------------------------------------------------------------


def load(folder: Path, settings: Aims) -> str:
    return Path(folder, "rows.csv").read_text()


class Escapes:
    def init(self, seed: int) -> dict[str, Any]:
        return {"w": np.zeros(1, np.float32)}

    def fit(self, model: Any, data: Any, settings: Aims, seed: int) -> tuple[Any, int, dict[str, float]]:
        return model, 1, {}

    def evaluate(self, model: Any, data: Any, settings: Aims) -> dict[str, float]:
        try:
            return {"escaped": float(ATTEMPTS[str(settings["attempt"])].run(settings)), "errno": 0.0}
        except OSError as error:
            if error.errno not in REFUSALS:
                raise
            return {"escaped": 0.0, "errno": float(error.errno or 0)}

    def export(self, model: Any) -> bytes:
        return b""


def learner(settings: Aims) -> Escapes:
    return Escapes()
