"""``python -m fedfsd.service.launch [options] -- command ...``: give up rights, then become the command.

All or nothing: if a right cannot be given up, it prints one line and ends with 125 instead of running the
command with more rights than intended.

| option | effect |
|---|---|
| --user NAME | runs as that user, with its groups (from root only); a number needs no account |
| --no-network | a network namespace of its own, with nothing but its own loopback; Unix sockets still work |
| --output FILE | stdout and stderr go there, opened with the rights of that user; begun anew above 8 MiB |
| --parent PID | is killed when that process ends, however it ends |
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import os
import pwd
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

REFUSED = 125
_HARMFUL = ("PYTHON", "LD_", "DYLD_", "GCONV_PATH", "OPENSSL_")
_MAX_OUTPUT = 8 * 2**20
_CLONE_NEWUSER, _CLONE_NEWNET, _PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 0x10000000, 0x40000000, 1, 38


_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1


def command(
    argv: Sequence[str],
    *,
    user: str | None = None,
    network: bool = True,
    output: Path | None = None,
    parent: int | None = None,
    isolated: bool = False,
) -> list[str]:
    """The command line that runs ``argv`` under these conditions; ``isolated``: see ``harmless``."""
    options = [] if user is None else ["--user", user]
    options += [] if network else ["--no-network"]
    options += [] if output is None else ["--output", str(output)]
    options += [] if parent is None else ["--parent", str(parent)]
    # -P: a module in the current folder is never taken for one of ours; -I: nor what the environment names.
    return [sys.executable, "-I" if isolated else "-P", "-m", "fedfsd.service.launch", *options, "--", *argv]


def harmless(environment: Mapping[str, str]) -> dict[str, str]:
    """``environment`` without what puts other code into a process: Python's own words and the linker's.

    >>> harmless({"PYTHONPATH": "/elsewhere", "LD_PRELOAD": "other.so", "HOME": "/home/eu"})
    {'HOME': '/home/eu'}
    """
    return {name: value for name, value in environment.items() if not name.startswith(_HARMFUL)}


def isolate(module: str) -> None:
    """Begin this process anew, as ``module``, where something else can be in it than what is installed.

    The first thing that a module does, whoever started it. It ignores what ``harmless`` leaves out.
    """
    around = harmless(os.environ)
    if not sys.flags.isolated or around.keys() != os.environ.keys():
        os.execve(sys.executable, [sys.executable, "-I", "-m", module, *sys.argv[1:]], around)


def obstacle(*, user: str | None = None, network: bool = True) -> str | None:
    """Why this process cannot give up these rights here, or not run our code with what is left; else None."""
    ours = [sys.executable, "-P", "-c", "import fedfsd"]
    tried = subprocess.run(
        command(ours, user=user, network=network), stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if tried.returncode == 0:
        return None
    return (tried.stderr.strip().splitlines() or ["it ended without a message"])[-1]


def main(words: Sequence[str] | None = None) -> int:
    """Become the command; returns only where that failed."""
    parser = argparse.ArgumentParser(prog="fedfsd.service.launch", allow_abbrev=False)
    parser.add_argument("--user")
    parser.add_argument("--no-network", action="store_true")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--parent", type=int)
    parser.add_argument("command", nargs="+")
    asked = parser.parse_args(words)
    try:
        if asked.user is not None:
            _become(asked.user, network=not asked.no_network)
        elif asked.no_network:
            _cut_network()
        _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if asked.output is not None:
            _redirect(asked.output)
        if asked.parent is not None:
            # After every change of rights, each of which forgets it; then the parent may be gone already.
            _call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != asked.parent:
                return REFUSED
        os.execvp(asked.command[0], asked.command)
    except (OSError, KeyError) as error:
        reason = f"no user {asked.user}" if isinstance(error, KeyError) else error.strerror
        print(f"launch: {asked.command[0]}: {reason}", file=sys.stderr, flush=True)
    return REFUSED


def account(name: str) -> tuple[int, int]:
    """(uid, gid) of a user; a number is both. KeyError where there is no such user."""
    if name.isdecimal():
        return int(name), int(name)
    user = pwd.getpwnam(name)
    return user.pw_uid, user.pw_gid


def _become(name: str, *, network: bool) -> None:
    uid, gid = account(name)
    if not network:
        _cut_network()
    if os.getuid() != uid:
        os.setgroups([] if name.isdecimal() else os.getgrouplist(name, gid))
        os.setgid(gid)
        os.setuid(uid)
    home = "/" if name.isdecimal() else pwd.getpwnam(name).pw_dir
    os.environ.update(HOME=home, USER=name, LOGNAME=name)


def _cut_network() -> None:
    if os.geteuid() == 0:
        _call("unshare", _CLONE_NEWNET)
        _loopback()
        return
    uid, gid = os.getuid(), os.getgid()
    _call("unshare", _CLONE_NEWUSER | _CLONE_NEWNET)
    # The same names inside as outside, so that files and the peer of a Unix socket look as before.
    for file, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid} {uid} 1"),
        ("gid_map", f"{gid} {gid} 1"),
    ):
        Path("/proc/self", file).write_text(text)
    _loopback()


def _loopback() -> None:
    """Processes of one region talk over it; where it stays down, there is no network at all."""
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        up = struct.pack("16sH", b"lo", _IFF_UP)
        fcntl.ioctl(any_socket.fileno(), _SIOCSIFFLAGS, up.ljust(40, b"\0"))


def _redirect(path: Path) -> None:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(path, flags, 0o600)
    if os.fstat(file).st_size > _MAX_OUTPUT:
        os.ftruncate(file, 0)
    os.dup2(file, 1)
    os.dup2(file, 2)


def _call(name: str, *numbers: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*map(ctypes.c_ulong, numbers)) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    sys.exit(main())
