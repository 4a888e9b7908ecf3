"""Settings of the C libraries under torch, applied before they are loaded.

glibc's allocator returns every block above a threshold to the kernel as soon as it is freed, and the next
layer's activations are paged in again, page by page. Keeping the blocks makes a forward pass of ConvNeXt-tiny
on a CPU 1.2 to 1.3 times as fast, with identical bits.

GNU OpenMP's threads wait for each other in a busy loop. If another process wants the processor too (the
dashboard, during indexing), each operator then waits for the kernel's next time slice. Yielding the processor
sooner makes the same pass 1.2 to 1.4 times as fast next to one busy process, and costs nothing on an idle
machine.

Both are read only at process start, so a command that will load torch re-executes itself with them.
`tests/bench/bench_runtime.py` measures both.
"""

import os
import platform
import sys
from collections.abc import Sequence

SETTINGS = {
    # In bytes: larger than any activation, and more than a forward pass keeps at a time.
    "MALLOC_MMAP_THRESHOLD_": str(8 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(16 << 30),
    # Iterations of the busy loop.
    "GOMP_SPINCOUNT": "1000",
}


def restart_with_settings(argv: Sequence[str] | None = None) -> None:
    """Re-execute this process with the same arguments and the settings; values set by the user are kept.

    Does nothing if it cannot help: not Linux with glibc, the settings already exist, or torch is loaded. The
    process keeps its id, so a supervisor notices nothing. Call this before anything is opened or started.

    Args:
        argv: the command with its interpreter; default: how this process was started.
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc" or "torch" in sys.modules:
        return
    if SETTINGS.keys() <= os.environ.keys():
        return
    command = list(argv or sys.orig_argv)
    if "-c" in command[1:2] or command[1:] == []:
        return  # an interactive session or inline code: not ours to re-execute
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *command[1:]], SETTINGS | os.environ)
