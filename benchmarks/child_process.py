"""What a measured process is made of: the standard library alone, so that nothing else is in its time and memory.

    python benchmarks/child_process.py cost REPORT COMMAND ...        # run a command, note what it took
    python benchmarks/child_process.py stages REPORT MODULE WORD ...  # run a module, note which code took it
    python benchmarks/child_process.py greedy FOLDER                  # picsl-greedy with its own affine registration

A process that starts another hands its own peak of memory down, so that the one that measures has to be small itself.
"""

from __future__ import annotations

import atexit
import json
import os
import runpy
import signal
import sys
import time
from pathlib import Path
from types import CodeType, FrameType

TICK = 0.005  # CPU seconds between two looks at the stack
OTHER = "other"
STAGES = {  # of which files the code is; the innermost that is listed counts
    "import": ("<frozen importlib",),
    "figure": ("/monai_regplugins/figures/", "/matplotlib/figure.py"),
    "measure": ("/monai_regplugins/metrics/", "/handlers/registration_metrics.py"),
    "initial alignment": ("/transforms/initial_alignment", "/transforms/alignment_"),
    "refinement": ("/inferers/refine.py", "/inferers/descent.py", "/inferers/observed_pair.py"),
    "network": ("/monai_regplugins/networks/", "/monai_regplugins/inferers/"),
    "warp": ("/transforms/warp_original.py", "/monai_regplugins/result.py"),
    "write": ("/monai_regplugins/io/", "/outputs/registration_writer.py"),
    "load": ("/monai_regplugins/transforms/", "/monai_regplugins/readers/", "/monai_regplugins/data/"),
}
GREEDY = (  # the settings of its row in the other comparisons, and an affine registration first
    "-a -dof 12 -ia-image-centers -i fixed.nii.gz moving.nii.gz -m NCC 2x2x2 -n 100x50x10 -o affine.mat",
    "-i fixed.nii.gz moving.nii.gz -it affine.mat -m NCC 2x2x2 -n 100x50x10 -s 1.7vox 0.7vox -o warp.nii.gz",
    "-rf fixed.nii.gz -rm moving.nii.gz warped.nii.gz -ri LABEL 0.2vox -rm moving_label.nii.gz warped_label.nii.gz "
    "-r warp.nii.gz affine.mat",
)


def cost(report: str, command: list[str]) -> None:
    """Run a command; note its status, its CPU and wall seconds and its peak of memory in MiB."""
    start = time.perf_counter()
    process = os.posix_spawn(command[0], command, os.environ)
    _, status, used = os.wait4(process, 0)
    unit = 1 if sys.platform == "darwin" else 1024  # bytes of ru_maxrss
    found = {
        "status": os.waitstatus_to_exitcode(status),
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "seconds": time.perf_counter() - start,
        "peak_mib": used.ru_maxrss * unit / 2**20,
    }
    Path(report).write_text(json.dumps(found), encoding="utf-8")


class StageClock:
    """Gives CPU time to the stage whose code runs, by a look at the stack every few milliseconds.

    A look that comes late, since compiled code holds the interpreter, gives the whole time to who called that code.

    Args:
        report: file that holds CPU seconds by stage at the end, and by how many MiB the stage has raised the peak of
            the process's memory; these add up to the peak.
    """

    def __init__(self, report: str) -> None:
        self.report, self._last = Path(report), (time.process_time(), peak())
        self.spent = {stage: [0.0, 0.0] for stage in (*STAGES, OTHER)}
        self.spent["import"] = list(self._last)  # the start of Python itself
        self._stage_of: dict[CodeType, str] = {}

    def start(self) -> None:
        """Look from now on, until the process ends."""
        signal.signal(signal.SIGPROF, self._look)
        signal.siginterrupt(signal.SIGPROF, False)
        signal.setitimer(signal.ITIMER_PROF, TICK, TICK)
        atexit.register(self._finish)

    def _look(self, number: int, frame: FrameType | None) -> None:
        now = (time.process_time(), peak())
        spent = self.spent[self._stage(frame)]
        for kind, value in enumerate(now):
            spent[kind] += value - self._last[kind]
        self._last = now

    def _stage(self, frame: FrameType | None) -> str:
        """Return the stage of the innermost frame that has one."""
        while frame is not None:
            code = frame.f_code
            if code not in self._stage_of:
                self._stage_of[code] = stage_of(code.co_filename)
            if self._stage_of[code]:
                return self._stage_of[code]
            frame = frame.f_back
        return OTHER

    def _finish(self) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        self._look(0, None)
        found = {stage: {"cpu_seconds": spent[0], "raised_mib": spent[1]} for stage, spent in self.spent.items()}
        self.report.write_text(json.dumps(found), encoding="utf-8")


def stage_of(file: str) -> str:
    """Return the stage that the code of a file belongs to, empty for none."""
    name = file.replace(os.sep, "/")
    return next((stage for stage, parts in STAGES.items() if any(part in name for part in parts)), "")


def peak() -> float:
    """Return the peak of memory of this process so far, MiB; elsewhere than on Linux zero."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return 0.0
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def stages(report: str, module: str, words: list[str]) -> None:
    """Run a module as ``python -m`` does, and note CPU time and memory by stage."""
    sys.argv = [module, *words]
    sys.path[0] = ""
    StageClock(report).start()
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def greedy(folder: str) -> None:
    """Register and resample the pair in a folder by greedy."""
    from picsl_greedy import Greedy3D

    os.chdir(folder)
    for command in GREEDY:
        Greedy3D().execute(f"-V 0 -threads 1 {command}")


if __name__ == "__main__":
    if sys.argv[1] == "cost":
        cost(sys.argv[2], sys.argv[3:])
    elif sys.argv[1] == "stages":
        stages(sys.argv[2], sys.argv[3], sys.argv[4:])
    else:
        greedy(sys.argv[2])
