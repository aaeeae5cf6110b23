"""Two processes, one gradient: the scorer's forward is all that DDP and FSDP2 have to see."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path


def test_two_processes_give_the_gradient_of_one() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    script = Path(__file__).with_name("two_processes.py")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), port], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=300) for process in running]
    for process, (out, err) in zip(running, said, strict=True):
        assert process.returncode == 0, err[-3000:]
        assert len(out.splitlines()) == 8, out
