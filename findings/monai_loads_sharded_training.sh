#!/usr/bin/env bash
# What `import monai` loads of PyTorch where Ignite is installed, as MONAI's bundles need it.
# Most expect: PyTorch without its parts for sharded training (FSDP, distributed tensors), which nothing here uses.
# Seen: all of them, some 600 modules, 50 MiB and a fifth of the CPU time of the import. MONAI's enumerations import
# Ignite, whose checkpoints import `torch.distributed.optim` to recognize one class, ZeroRedundancyOptimizer, and that
# package imports FSDP and distributed tensors. With a stand-in for this one module none of it is loaded, and all else is.
# For users: each process of a list, each worker of a data loader that is spawned, and each small command pays it.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 torch==2.13.0 monai==1.6.1 pytorch-ignite==0.5.5
check <<'EOF'
import subprocess
import sys

from expect import expect

CODE = """
import resource
import sys
from types import ModuleType

if {stand_in}:
    sys.modules["torch.distributed.optim"] = module = ModuleType("torch.distributed.optim")
    module.ZeroRedundancyOptimizer = type("ZeroRedundancyOptimizer", (), {{}})
import {package}

loaded = [name in sys.modules for name in ("ignite.handlers", "torch.distributed.fsdp", "torch.distributed.tensor")]
print(len(sys.modules), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, *loaded)
"""


def run(package: str, stand_in: bool = False) -> list[str]:
    code = CODE.format(package=package, stand_in=stand_in)
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


torch_alone, monai, without = run("torch"), run("monai"), run("monai", stand_in=True)
expect("import torch: Ignite, FSDP, distributed tensors", torch_alone[2:], ["False", "False", "False"])
expect("import monai: Ignite, FSDP, distributed tensors", monai[2:], ["True", "True", "True"])
expect("import monai with a stand-in: the same", without[2:], ["True", "False", "False"])
expect("hundreds of modules more", round((int(monai[0]) - int(without[0])) / 100), 6)
expect("at least 40 MiB more", int(monai[1]) - int(without[1]) >= 40, True)
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 torch==2.13.0 monai==1.6.1 pytorch-ignite==0.5.5
# import torch: Ignite, FSDP, distributed tensors: ['False', 'False', 'False']
# import monai: Ignite, FSDP, distributed tensors: ['True', 'True', 'True']
# import monai with a stand-in: the same: ['True', 'False', 'False']
# hundreds of modules more: 6
# at least 40 MiB more: True
