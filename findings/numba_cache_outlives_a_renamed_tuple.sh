#!/usr/bin/env bash
# Numba 0.68.1, functions cached with cache=True whose arguments are named tuples.
#
# One would expect: the cache is dropped when the source file has changed, so a renamed tuple class means one more compilation.
# What happens: the index of the cache names the types of arguments and is unpickled before its stamp is compared with the file.
# Where the class is gone from the module the program ends with an AttributeError, run after run, until __pycache__ is deleted.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numba==0.68.1
cd "$folder"

write_module() {
    cat >kernels.py <<PYTHON
from typing import NamedTuple

import numba


class $1(NamedTuple):
    left: float
    right: float


@numba.njit(cache=True)
def total(pair):
    return pair.left + pair.right


print("total", total($1(1.0, 2.0)))
PYTHON
}

run() { PYTHONPATH=. venv/bin/python -c "import kernels" 2>&1 || true; }

venv/bin/python -c "import sys, numba; print('python', sys.version.split()[0], 'numba', numba.__version__)"
write_module Pair
first=$(run)
write_module Couple
touch -d '+5 seconds' kernels.py
second=$(run)
third=$(run)
rm -rf __pycache__
fourth=$(run)
printf '%s\n' "as written:       $first" "renamed:          $(tail -1 <<<"$second")" "once more:        $(tail -1 <<<"$third")" "cache deleted:    $fourth"

# Seen on Python 3.11:
#   as written:       total 3.0
#   renamed:          AttributeError: Can't get attribute 'Pair' on <module 'kernels' from '.../kernels.py'>
#   once more:        the same
#   cache deleted:    total 3.0
[ "$first" = "total 3.0" ]
grep -q "AttributeError: Can't get attribute 'Pair'" <<<"$second"
grep -q "AttributeError: Can't get attribute 'Pair'" <<<"$third"
[ "$fourth" = "total 3.0" ]
echo "as described"
