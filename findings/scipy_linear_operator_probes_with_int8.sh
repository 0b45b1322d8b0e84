#!/usr/bin/env bash
# scipy 1.16.2, scipy.sparse.linalg.LinearOperator without a dtype.
#
# One would expect: the function that is given is called with the vectors that the caller multiplies, of floating point, and the
# type is that of the first answer.
# What happens: to learn the type, the constructor calls the function at once, with a vector of zeros of type int8. A function that
# works in place on a copy of its argument, as a preconditioner that adds corrections does, raises a casting error before any
# product was asked for; one that counts its calls counts one too many. With dtype=float nothing is called.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check scipy==1.16.2 numpy==2.3.3
cd "$folder"
seen=$(venv/bin/python - <<'PYTHON'
import numpy as np
import scipy
from scipy.sparse.linalg import LinearOperator

print("scipy", scipy.__version__)
given = []


def halved(x):
    given.append(x.dtype.name)
    found = np.zeros_like(x)
    found += 0.5 * x
    return found


try:
    LinearOperator((3, 3), matvec=halved)
    print("made")
except TypeError as failure:
    print("refused:", type(failure).__name__)
print("called with", given)
given.clear()
operator = LinearOperator((3, 3), matvec=halved, dtype=float)
print("with dtype=float called with", given)
print(operator @ np.ones(3), given)
PYTHON
)
echo "$seen"

# Seen on Python 3.11:
#   scipy 1.16.2
#   refused: UFuncTypeError
#   called with ['int8']
#   with dtype=float called with []
#   [0.5 0.5 0.5] ['float64']
grep -q "refused: UFuncTypeError" <<<"$seen"
grep -q "called with \['int8'\]" <<<"$seen"
grep -q "with dtype=float called with \[\]" <<<"$seen"
echo "as described"
