from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_FAULTS = """
import resource, sys
import numpy as np
from rotomem.cli import main
if sys.argv[1] == "kept":
    main(["--version"]), main(["info"])
for turn in range(12):
    if turn == 2:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(1 << 23)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
def test_main_when_a_verb_ran_then_memory_that_is_freed_is_taken_again_without_page_faults() -> None:
    def faults(how: str) -> int:
        done = subprocess.run([sys.executable, "-c", _FAULTS, how], capture_output=True, text=True, timeout=60)
        return int(done.stdout.splitlines()[-1])

    assert faults("kept") < faults("given back") / 4
