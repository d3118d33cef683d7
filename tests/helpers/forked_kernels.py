"""Kernels that start at once: each is a child of one process, which has imported the packages that take seconds.

Nothing of vistok or of Jupyter's widgets is imported before the kernel is one: what a cell imports of them, it imports itself.
The server of kernels and its clients are this file, run as a program; what Jupyter starts is a client, which lives as long as
its kernel and passes signals on.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

# Not matplotlib, nor what imports it: it asks for its backend when it is imported, and a kernel has one of its own.
HEAVY = ("torch._dynamo", "torchvision", "accelerate", "scipy.linalg", "skimage", "ipykernel.kernelapp")


@contextlib.contextmanager
def forked_kernels() -> Iterator[dict[str, str]]:
    """Start the server; yields the environment in which Jupyter's "python3" is a child of it."""
    with tempfile.TemporaryDirectory(prefix="kernels-") as folder:
        address, own = f"{folder}/socket", Path(folder) / "kernels" / "python3"
        own.mkdir(parents=True)
        spec = {
            "argv": [sys.executable, "-I", "-S", __file__, address, "-f", "{connection_file}"],
            "display_name": "Python 3 (ipykernel)",
            "language": "python",
            "metadata": {"debugger": True},
        }
        (own / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
        with subprocess.Popen([sys.executable, __file__, address], stdin=subprocess.PIPE) as server:
            try:
                yield {"JUPYTER_PATH": folder}
            finally:
                server.kill()


def serve(address: str) -> None:
    """Import, and fork a kernel for each client."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the kernels
    for name in HEAVY:
        with contextlib.suppress(ImportError):
            __import__(name)
    # With the process that started this one, this one ends.
    threading.Thread(target=lambda: (sys.stdin.buffer.read(), os._exit(0)), daemon=True).start()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{address}.part")
        listening.listen(16)
        os.rename(f"{address}.part", address)
        while True:
            client, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                become_kernel(client)
            client.close()


def become_kernel(client: socket.socket) -> None:
    """Be the kernel that a client asked for, in its folder and environment, until it is gone."""
    asked = json.loads(client.makefile("r", encoding="utf-8").readline())
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.environ["JPY_PARENT_PID"] = str(os.getppid())  # it is no child of Jupyter's
    sys.argv = ["ipykernel_launcher", *asked["arguments"]]
    sys.path[0] = asked["folder"]
    client.sendall(f"{os.getpid()}\n".encode())
    threading.Thread(target=lambda: (client.recv(1), os._exit(1)), daemon=True).start()

    from ipykernel import kernelapp

    kernelapp.launch_new_instance()
    os._exit(0)


def ask(address: str, arguments: list[str]) -> None:
    """Ask for a kernel, and last as long as it does."""
    end = time.monotonic() + 120
    with socket.socket(socket.AF_UNIX) as server:
        while True:  # the server may still import
            try:
                server.connect(address)
                break
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)
        asked = {"arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)}
        server.sendall(json.dumps(asked).encode() + b"\n")
        kernel = int(server.makefile("r").readline())
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: os.kill(kernel, number))
        server.recv(1)  # it sends nothing more: this returns once it is gone


if __name__ == "__main__":
    if len(sys.argv) == 2:
        serve(sys.argv[1])
    else:
        ask(sys.argv[1], sys.argv[2:])
