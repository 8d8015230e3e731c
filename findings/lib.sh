# Sourced by every script here: prints its header, makes a temp folder that goes with the script, and helps to install
# and to check.

set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
cd "$work"

# packages NAME==VERSION ...: install these into a fresh environment and print them.
packages() {
    python3 -m venv environment
    environment/bin/pip install --quiet --no-compile "$@" 2> pip.log || { cat pip.log; exit 1; }
    echo "$(environment/bin/python --version), $*"
}

# check: run Python code from standard input there; it imports `expect` to compare what it sees with what was seen.
check() {
    PATH="$work/environment/bin:$PATH" PYTHONPATH="$here" OMP_NUM_THREADS=1 ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS=1 \
        environment/bin/python -W ignore -
}
