#!/usr/bin/env bash
# torch 2.13.0, torch.optim.Muon on float64 parameters.
#
# One would expect: parameters and gradients in float64 take an update of that precision, as those of Adam and SGD do; the
# documentation of the optimizer names no other type.
# What happens: the momentum is orthogonalised in bfloat16 whatever the type. Every entry of the update is a bfloat16 number,
# eight bits of mantissa, and more steps of the iteration bring its singular values no nearer to one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy
cd "$folder"
seen=$(venv/bin/python - <<'PYTHON'
import torch

print("torch", torch.__version__.partition("+")[0])
gradient = torch.randn(6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
for make in (torch.optim.Muon, torch.optim.SGD):
    parameter = torch.nn.Parameter(torch.zeros(6, 6, dtype=torch.float64))
    optimizer = make([parameter], lr=1.0, momentum=0.0, nesterov=False, weight_decay=0.0)
    parameter.grad = gradient.clone()
    optimizer.step()
    rounded = torch.equal(parameter.detach(), parameter.detach().bfloat16().double())
    print(make.__name__, parameter.dtype, "every entry is a bfloat16 number:", rounded)
PYTHON
)
echo "$seen"

# Seen on Python 3.11:
#   torch 2.13.0
#   Muon torch.float64 every entry is a bfloat16 number: True
#   SGD torch.float64 every entry is a bfloat16 number: False
grep -q "Muon torch.float64 every entry is a bfloat16 number: True" <<<"$seen"
grep -q "SGD torch.float64 every entry is a bfloat16 number: False" <<<"$seen"
echo "as described"
