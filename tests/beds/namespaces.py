"""Network namespaces of a test's own: links that can go down, and ports that nobody else has. Linux, and root only."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from peers import missing, need

T = TypeVar("T")
CLONE_NEWNET = 0x40000000  # sched.h


def in_namespace(work: Callable[[], T]) -> T:
    """Do work in a network namespace that ends with it; return what it returns, or raise what it raises.

    It is a thread that is in the namespace, and so is what that thread starts.
    """
    if sys.platform != "linux" or os.geteuid() != 0:
        missing("only root can make a network namespace, and only on Linux")
    outcome: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            ip("link", "set", "lo", "up")
            outcome.append(work())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


@contextmanager
def far_namespace() -> Iterator[tuple[int, tuple[str, ...]]]:
    """Another network namespace, which ends with the block: a process in it, and what runs a command there."""
    with ExitStack() as ends:
        far = ends.enter_context(
            subprocess.Popen([need("unshare"), "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        )
        assert far.stdin is not None
        assert far.stdout is not None
        ends.callback(far.stdin.close)  # which ends it, and with it the namespace
        far.stdin.write(b"\n")
        far.stdin.flush()
        assert far.stdout.read(1) == b"\n"  # unshare has become cat: the namespace is there
        yield far.pid, (need("nsenter"), f"--net=/proc/{far.pid}/ns/net")


def ip(*words: str, within: tuple[str, ...] = ()) -> None:
    """Run ip(8)."""
    subprocess.run([*within, need("ip"), *words], check=True)
