"""killed_runs.py PROJECT N...: runs a project once for each N, and kills it with SIGKILL at its Nth event.

An event is a step of a session, or a file about to take its name. Each run begins where the one before left off. In
one process that forks, since importing torch takes longer than all the runs.
"""

from __future__ import annotations

import os
import signal
import sys

import rotomem.engine.shot  # noqa: F401
from rotomem.engine.session import Session
from rotomem.project.project import Project


def run_until(project: str, events: int) -> None:
    """Never returns where there are that many events."""
    left = events

    def counted(plain):
        def call(*args, **settings):
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return plain(*args, **settings)

        return call

    Session.step = counted(Session.step)
    os.replace = counted(os.replace)
    Project.open(project).run()


for count in sys.argv[2:]:
    child = os.fork()
    if child == 0:
        run_until(sys.argv[1], int(count))
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    print("killed" if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL else f"ended {status}")
