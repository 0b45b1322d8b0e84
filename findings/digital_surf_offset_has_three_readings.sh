#!/usr/bin/env bash
# surfalize 0.19.2, SurfaceTopography 1.27.1, rosettasciio 0.15.0 on a Digital Surf file (.sur) whose heights have an offset.
#
# One would expect: height = integer x spacing + offset, both in the unit of the axis that the header names, as the description of
# the format has it; three readers would then agree.
# What happens: no two of them do. surfalize scales the integers from the unit of the file and adds the offset as if it were in
# micrometres; SurfaceTopography leaves the offset out; rosettasciio subtracts the least integer before it adds the offset, so
# that the lowest point comes to lie at the offset. Without an offset, and with a least integer of zero, all agree.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check surfalize==0.19.2 SurfaceTopography==1.27.1 rosettasciio==0.15.0
cd "$folder"
seen=$(venv/bin/python -W ignore - <<'PYTHON'
import struct

import numpy as np

head = bytearray(512)
fields = {
    0: ("12s", b"DIGITAL SURF"), 14: ("h", 1), 16: ("h", 1), 18: ("h", 2), 20: ("30s", b"plane".ljust(30)), 50: ("30s", b" " * 30),
    88: ("h", 1), 98: ("h", 16), 100: ("i", -100), 104: ("i", 100), 108: ("i", 5), 112: ("i", 4), 116: ("i", 20),
    120: ("f", 0.001), 124: ("f", 0.001), 128: ("f", 0.01),
    132: ("16s", b"X".ljust(16)), 148: ("16s", b"Y".ljust(16)), 164: ("16s", b"Z".ljust(16)),
    180: ("16s", b"mm".ljust(16)), 196: ("16s", b"mm".ljust(16)), 212: ("16s", b"nm".ljust(16)),
    228: ("16s", b"mm".ljust(16)), 244: ("16s", b"mm".ljust(16)), 260: ("16s", b"nm".ljust(16)),
    276: ("f", 1.0), 280: ("f", 1.0), 284: ("f", 1.0), 288: ("h", 1), 474: ("f", 700.0),
}
for at, (form, value) in fields.items():
    struct.pack_into("<" + form, head, at, value)
points = np.linspace(-100, 100, 20).astype("<i2")
with open("plane.sur", "wb") as file:
    file.write(bytes(head) + points.tobytes())


def told(name, heights_nm):
    print(name, "reads", *(f"{value:.3f}" for value in (np.min(heights_nm), np.max(heights_nm))), "nm")


told("the description", 0.01 * points.astype(float) + 700)
import surfalize

told("surfalize", 1000 * surfalize.Surface.load("plane.sur").data)
from SurfaceTopography import open_topography

topography = open_topography("plane.sur").topography()
assert topography.unit == "nm"
told("SurfaceTopography", topography.heights())
from rsciio.digitalsurf import file_reader

told("rosettasciio", file_reader("plane.sur")[0]["data"])
PYTHON
)
echo "$seen"

# Seen on Python 3.11:
#   the description reads 699.000 701.000 nm
#   surfalize reads 699999.000 700001.000 nm
#   SurfaceTopography reads -1.000 1.000 nm
#   rosettasciio reads 700.000 702.000 nm
grep -q "the description reads 699.000 701.000 nm" <<<"$seen"
grep -q "surfalize reads 699999.000 700001.000 nm" <<<"$seen"
grep -q "SurfaceTopography reads -1.000 1.000 nm" <<<"$seen"
grep -q "rosettasciio reads 700.000 702.000 nm" <<<"$seen"
echo "as described"
