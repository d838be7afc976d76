"""The system calls a worker may not make: a fixed filter, assembled here for each architecture.

A list of what is refused: what opens a network, starts a program or a process, reaches another
process, changes the machine, or gets around the file rules. What a kernel newer than this list
has is refused as unknown. Threads can be made, processes cannot. Source: Linux, seccomp(2) and the
tables of system calls of both architectures.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from reuna.adapters.sandbox.kernel import PR_SET_SECCOMP, NotReached, prctl_filter, threads

MODE_FILTER = 2
NEWEST = 462  #: the last system call this list was made for
#: Offsets in ``struct seccomp_data``; arguments are 64 bits wide, low word first.
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16
LOAD, AND, RETURN = 0x20, 0x54, 0x06
EQUAL, ABOVE, AT_LEAST, ANY_BIT = 0x15, 0x25, 0x35, 0x45
ALLOW, KILL, ERROR = 0x7FFF0000, 0x80000000, 0x00050000
X32 = 0x40000000  #: numbers of x86_64's second table begin here

CLONE_THREAD, CLONE_NEW = 0x00010000, 0x7E020080  #: every CLONE_NEW… flag
AF_UNIX, SOCK_STREAM, TYPE_MASK = 1, 1, 0xF
O_TRUNC, O_ACCMODE = 0o1000, 3
TIOCSTI, TIOCLINUX = 0x5412, 0x541C
PR_SET_PDEATHSIG = 1

#: Refused whatever their arguments: name -> number on x86_64, on aarch64 (-1: not there).
REFUSED: dict[str, tuple[int, int]] = {
    # a network
    "socket": (41, 198), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201),
    "accept": (43, 202), "accept4": (288, 242),
    # programs and processes
    "execve": (59, 221), "execveat": (322, 281), "fork": (57, -1), "vfork": (58, -1), "uselib": (134, -1),
    # other processes
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "process_madvise": (440, 440), "process_mrelease": (448, 448), "kcmp": (312, 272),
    "pidfd_open": (434, 434), "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424),
    "move_pages": (279, 239), "migrate_pages": (256, 238), "ioprio_set": (251, 30),
    "shmget": (29, 194), "semget": (64, 190), "msgget": (68, 186), "mq_open": (240, 180),
    "mq_unlink": (241, 181),
    # namespaces and mounts
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "chroot": (161, 51),
    "pivot_root": (155, 41), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
    "statmount": (457, 457), "listmount": (458, 458),
    # doors into the kernel
    "bpf": (321, 280), "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "perf_event_open": (298, 241), "userfaultfd": (323, 282), "fanotify_init": (300, 262),
    "lookup_dcookie": (212, 18), "modify_ldt": (154, -1), "nfsservctl": (180, 42),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "lsm_set_self_attr": (460, 460),
    # the machine
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "create_module": (174, -1),
    "query_module": (178, -1), "get_kernel_syms": (177, -1), "reboot": (169, 142), "swapon": (167, 224),
    "swapoff": (168, 225), "acct": (163, 89), "quotactl": (179, 60), "quotactl_fd": (443, 443),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "clock_adjtime": (305, 266),
    "adjtimex": (159, 171), "sethostname": (170, 161), "setdomainname": (171, 162), "iopl": (172, -1),
    "ioperm": (173, -1), "syslog": (103, 116), "vhangup": (153, 58), "personality": (135, 92),
    # another user
    "setuid": (105, 146), "setgid": (106, 144), "setreuid": (113, 145), "setregid": (114, 143),
    "setresuid": (117, 147), "setresgid": (119, 149), "setfsuid": (122, 151), "setfsgid": (123, 152),
    "setgroups": (116, 159), "capset": (126, 91),
    # names, owners and attributes, which Landlock leaves alone
    "link": (86, -1), "linkat": (265, 37), "symlink": (88, -1), "symlinkat": (266, 36), "mknod": (133, -1),
    "mknodat": (259, 33), "truncate": (76, 45), "chmod": (90, -1), "fchmod": (91, 52), "fchmodat": (268, 53),
    "fchmodat2": (452, 452), "chown": (92, -1), "lchown": (94, -1), "fchown": (93, 55), "fchownat": (260, 54),
    "utime": (132, -1), "utimes": (235, -1), "futimesat": (261, -1), "utimensat": (280, 88),
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "removexattr": (197, 14),
    "lremovexattr": (198, 15), "fremovexattr": (199, 16),
}  # fmt: skip
#: Refused as if the kernel were too old for them: the C library then takes the older call, which is judged.
UNKNOWN: dict[str, tuple[int, int]] = {"clone3": (435, 435), "openat2": (437, 437)}
#: Judged by their arguments.
CLONE, SOCKETPAIR, IOCTL, PRCTL, LIMIT = (56, 220), (53, 199), (16, 29), (157, 167), (302, 261)
OPEN, OPENAT = (2, -1), (257, 56)
SIGNALS: dict[str, tuple[int, int]] = {
    "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
}  # fmt: skip


@dataclass(frozen=True)
class Architecture:
    """A table of system calls: its place in ours, and the kernel's word for it (AUDIT_ARCH_…)."""

    column: int
    audit: int


ARCHITECTURES = {"x86_64": Architecture(0, 0xC000003E), "aarch64": Architecture(1, 0xC00000B7)}
#: code, jump if true, jump if false, value
Step = tuple[int, int, int, int]
REFUSE: Step = (RETURN, 0, 0, ERROR | errno.EPERM)
PASS: Step = (RETURN, 0, 0, ALLOW)
NOT_THERE: Step = (RETURN, 0, 0, ERROR | errno.ENOSYS)


def program(machine: str, pid: int) -> list[Step]:
    """The filter for a machine and the process that takes it. Raises `NotReached`."""
    if machine not in ARCHITECTURES:
        raise NotReached(f"there is no filter for {machine}")
    architecture = ARCHITECTURES[machine]
    steps: list[Step] = [(LOAD, 0, 0, ARCHITECTURE), (EQUAL, 1, 0, architecture.audit), (RETURN, 0, 0, KILL)]
    steps.append((LOAD, 0, 0, NUMBER))
    if machine == "x86_64":
        steps += [(AT_LEAST, 0, 1, X32), REFUSE]
    steps += [(ABOVE, 0, 1, NEWEST), NOT_THERE]
    for numbers, body in _rules(pid):
        number = numbers[architecture.column]
        if number >= 0:
            steps += [(EQUAL, 0, len(body), number), *body]
    return [*steps, PASS]


def _rules(pid: int) -> Iterator[tuple[tuple[int, int], list[Step]]]:
    """A system call and what is done about it; each body ends with a return on every way."""
    for numbers in UNKNOWN.values():
        yield numbers, [NOT_THERE]
    for numbers in REFUSED.values():
        yield numbers, [REFUSE]
    for numbers in SIGNALS.values():
        yield numbers, [_argument(0), (EQUAL, 1, 0, pid), REFUSE, PASS]
    yield LIMIT, [_argument(0), (EQUAL, 2, 0, pid), (EQUAL, 1, 0, 0), REFUSE, PASS]
    yield CLONE, [_argument(0), (ANY_BIT, 1, 0, CLONE_NEW), (ANY_BIT, 1, 0, CLONE_THREAD), REFUSE, PASS]
    yield IOCTL, [_argument(1), (EQUAL, 1, 0, TIOCSTI), (EQUAL, 0, 1, TIOCLINUX), REFUSE, PASS]
    yield PRCTL, [_argument(0), (EQUAL, 0, 1, PR_SET_PDEATHSIG), REFUSE, PASS]
    # a pair is free, but one of datagrams could still send to a path
    pair = [_argument(0), (EQUAL, 0, 3, AF_UNIX), _argument(1), (AND, 0, 0, TYPE_MASK)]
    yield SOCKETPAIR, [*pair, (EQUAL, 1, 0, SOCK_STREAM), REFUSE, PASS]
    for numbers, flags in ((OPEN, 1), (OPENAT, 2)):  # opened to read, and emptied by that
        truncating = [_argument(flags), (ANY_BIT, 0, 3, O_TRUNC), (AND, 0, 0, O_ACCMODE)]
        yield numbers, [*truncating, (EQUAL, 0, 1, os.O_RDONLY), REFUSE, PASS]


def _argument(index: int) -> Step:
    """Load the low word of an argument."""
    return (LOAD, 0, 0, ARGUMENTS + 8 * index)


def packed(steps: list[Step]) -> bytes:
    """``struct sock_filter`` of each step."""
    return b"".join(struct.pack("<HBBI", *step) for step in steps)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def install() -> None:
    """Put the filter on this process for good. Raises `NotReached`."""
    steps = program(platform.machine(), os.getpid())
    if threads() > 1:
        raise NotReached("threads run already, which would stay free")
    try:
        prctl_filter(PR_SET_SECCOMP, MODE_FILTER, _Program(len(steps), packed(steps)))
    except OSError as error:
        raise NotReached(f"the kernel refuses it: {error.strerror}") from error
