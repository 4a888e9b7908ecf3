"""The C libraries under torch, set up before they are loaded.

glibc's allocator gives every block above a threshold back to the kernel as soon as it is freed, and the next
layer's activations are paged in anew, page by page. Keeping them makes a forward pass of ConvNeXt-tiny on a
CPU 1.2 to 1.3 times as quick, with the same bits.

GNU OpenMP's threads wait for each other in a loop that holds the processor. Where another process wants that
processor too (the dashboard, while an index is computed), each operator then waits for the kernel's next time
slice. Giving up the processor sooner makes the same pass 1.2 to 1.4 times as quick beside one busy process, and
costs nothing on an idle machine.

Both are read once, when a process starts, so a command that will load torch starts itself anew with them.
`tests/bench/bench_runtime.py` measures both.
"""

import os
import platform
import sys
from collections.abc import Sequence

SETTINGS = {
    # In bytes: larger than any activation, and more than a forward pass holds at a time.
    "MALLOC_MMAP_THRESHOLD_": str(8 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(16 << 30),
    # Turns of the waiting loop.
    "GOMP_SPINCOUNT": "1000",
}


def restart_with_settings(argv: Sequence[str] | None = None) -> None:
    """Replace this process by one with the same arguments and the settings; a person's own values are kept.

    Returns, and does nothing, where it cannot help: not Linux with glibc, the settings are there already, or
    torch is loaded. The process keeps its id, so whoever watches it notices nothing. Call before anything is
    opened or started.

    Args:
        argv: the command with its interpreter; default: how this process was started.
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc" or "torch" in sys.modules:
        return
    if SETTINGS.keys() <= os.environ.keys():
        return
    command = list(argv or sys.orig_argv)
    if "-c" in command[1:2] or command[1:] == []:
        return  # an interactive session or a line of code: not ours to start again
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *command[1:]], SETTINGS | os.environ)
