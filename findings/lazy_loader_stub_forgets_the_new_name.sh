#!/usr/bin/env bash
# lazy_loader 0.6, a package whose names are attached from its stub (attach_stub).
#
# One would expect: "from .shapes import area as surface_area" in the stub gives the package the name that type checkers see,
# surface_area, or is refused as other unsupported lines are ("from .shapes import *" raises a ValueError).
# What happens: the part after "as" is dropped without a word. The package has the name "area", which the stub does not
# declare, and lacks "surface_area", which it does; nothing fails until the name is used.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check lazy_loader==0.6
cd "$folder"
mkdir pack
cat >pack/__init__.py <<'PYTHON'
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
PYTHON
echo "from .shapes import area as surface_area" >pack/__init__.pyi
printf 'def area():\n    return 4\n' >pack/shapes.py
seen=$(venv/bin/python - <<'PYTHON'
import sys
from importlib.metadata import version

sys.path.insert(0, ".")
import pack

print("lazy_loader", version("lazy_loader"), "names", pack.__all__)
print("area", pack.area(), "surface_area", hasattr(pack, "surface_area"))
PYTHON
)
echo "$seen"

# Seen on Python 3.11:
#   lazy_loader 0.6 names ['area']
#   area 4 surface_area False
grep -q "names \['area'\]" <<<"$seen"
grep -q "area 4 surface_area False" <<<"$seen"
echo "as described"
