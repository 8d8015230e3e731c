#!/usr/bin/env bash
# A configuration is resolved by `monai.bundle.ConfigParser` while another thread imports something, as in a server whose
# requests load bundles, or with libraries that import lazily. The other thread imports modules of Python's own.
# Most expect: a parser of one's own is independent of what other threads do.
# Seen: RuntimeError, "dictionary changed size during iteration", also for a class that is named in full. The first
# "_target_" of a parser makes MONAI's ComponentLocator loop over sys.modules, which grows with any import of any thread.
# For users: load bundles before threads start, under a lock with what imports, or try again; load_bundle tries again.

. "$(dirname "$0")/lib.sh"
packages torch==2.13.0 monai==1.6.1
check <<'EOF'
import encodings
import importlib
import pkgutil
import sys
import threading

from expect import expect
from monai.bundle import ConfigParser

NAMES = [f"encodings.{module.name}" for module in pkgutil.iter_modules(encodings.__path__) if module.name != "mbcs"]
sys.setswitchinterval(1e-5)  # threads take turns more often than by default: the same, sooner
stop = threading.Event()


def import_something() -> None:
    while not stop.is_set():
        for name in NAMES:
            if not stop.is_set() and name not in ("encodings.utf_8", "encodings.aliases"):
                sys.modules.pop(name, None)
                try:
                    importlib.import_module(name)
                except ImportError:  # another platform's
                    pass


def resolve(target: str, times: int) -> str:
    """Resolve a configuration some times; return the first error."""
    for _ in range(times):
        try:
            ConfigParser({"network": {"_target_": target}}).get_parsed_content("network")
        except RuntimeError as error:
            return str(error)
    return "none"


expect("error in one thread", resolve("Identity", 2), "none")
other = threading.Thread(target=import_something)
other.start()
try:
    expect("error while another one imports", resolve("Identity", 200), "dictionary changed size during iteration")
    expect("error with the full name", resolve("torch.nn.Identity", 200), "dictionary changed size during iteration")
finally:
    stop.set()
    other.join()
EOF

# Output seen:
# Python 3.11.7, torch==2.13.0 monai==1.6.1
# error in one thread: none
# error while another one imports: dictionary changed size during iteration
# error with the full name: dictionary changed size during iteration
