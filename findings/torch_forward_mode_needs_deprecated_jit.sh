#!/usr/bin/env bash
# torch 2.13.0, torch.func.jvp with warnings as errors.
#
# One would expect: a derivative in forward mode is plain eager work; a program that forbids DeprecationWarning runs.
# What happens: the first forward-mode derivative of a process imports decompositions that call torch.jit.script, which torch
# itself deprecates: the call ends in a DeprecationWarning about a function that the program never named. torch.func.vjp of the
# same function warns of nothing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy
cd "$folder"
cat >derive.py <<'PYTHON'
import sys
import warnings

import torch

x = torch.ones(3)
warnings.simplefilter("error", DeprecationWarning)
try:
    if sys.argv[1] == "jvp":
        torch.func.jvp(torch.sin, (x,), (x,))
    else:
        torch.func.vjp(torch.sin, x)[1](x)
    print(sys.argv[1], "runs")
except DeprecationWarning as warning:
    print(sys.argv[1], "ends in a DeprecationWarning about", "torch.jit" if "torch.jit" in str(warning) else warning)
PYTHON
seen=$(venv/bin/python -c 'import torch; print("torch", torch.__version__.partition("+")[0])'; venv/bin/python derive.py jvp; venv/bin/python derive.py vjp)
echo "$seen"

# Seen on Python 3.11:
#   torch 2.13.0
#   jvp ends in a DeprecationWarning about torch.jit
#   vjp runs
grep -q "jvp ends in a DeprecationWarning about torch.jit" <<<"$seen"
grep -q "vjp runs" <<<"$seen"
echo "as described"
