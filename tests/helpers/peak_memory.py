"""Memory that a piece of code takes at most, measured in a process of its own."""

from __future__ import annotations

import subprocess
import sys

MEASURE = """
import resource, sys, torch
torch.set_num_threads(1)
{prepare}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with torch.no_grad():
    {code}
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * (1 if sys.platform == "darwin" else 1024))
"""


def peak_growth(prepare: str, code: str) -> int:
    """Run ``code`` after ``prepare``, whose peak should not be above what it leaves, and return the growth in bytes."""
    script = MEASURE.format(prepare=prepare, code=code)
    done = subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.PIPE, text=True)
    return int(done.stdout.split()[-1])
