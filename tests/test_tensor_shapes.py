"""Shapes and types in the signatures of fields, learning and images hold: beartype checks them in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

TESTS = Path(__file__).parent
CHECKED = """
    import sys
    sys.path[:0] = [sys.argv[1], sys.argv[1] + "/images"]
    import warnings
    from jaxtyping import TypeCheckError, install_import_hook

    # files with Self in their methods and with protocols that have no runtime check are left out
    learning = ["objective", "linearise_term", "directions"]
    rooms = ["cpikan.fields", "cpikan.images", *(f"cpikan.learning.{name}" for name in learning)]
    with install_import_hook(rooms, "beartype.beartype"):
        import torch
        from loss_scenes import guess, scene
        from cpikan.fields.decomposed import DecomposedField
        from cpikan.fields.kinds import FIELDS, make_field
        from cpikan.fields.scaled_cpikan import ScaledCPIKAN
        from cpikan.fields.tensor_chebyshev import TensorChebyshev
        from cpikan.images.features import stack_patches
        from cpikan.images.curriculum import decimate
        from cpikan.images.features import FeatureSpec, predict
        from cpikan.images.losses import LOSSES, mean_loss
        from cpikan.images.models.kinds import build_model
        from cpikan.images.training.transform import recorrupt
        from cpikan.learning.directions.conflict_free import conflict_free
        from cpikan.learning.objective import half_squares
        from cpikan.learning.solver import SolveSettings, solve
        from cpikan.partition import Partition

    def refused(call):
        try:
            call()
        except TypeCheckError:
            return
        raise AssertionError("taken")

    torch.set_num_threads(1)
    box, x = ([0.0, 0.0], [1.0, 2.0]), torch.rand(3, 4, 2, dtype=torch.float64)
    parts = Partition.subdomains([0.0, 0.0], [1.0, 2.0], [2, 2], 0.5)
    tiles = ScaledCPIKAN([2, 3, 1], 3, DecomposedField.boxes(parts), networks=4)
    fields = [make_field(name, [2, 4, 2], 3, box) for name in FIELDS]
    for field in [*fields, TensorChebyshev((3, 2), box), DecomposedField(parts, tiles)]:
        for second in ("axes", "full", "laplacian", "none"):
            field.jet(x, second)
        field(x)
        if hasattr(field, "features"):
            field.features(x), field.features_jet(x), field.output_coefficients()
    tiles(x.reshape(1, 12, 2)), tiles.jet(x.reshape(1, 12, 2))
    refused(lambda: fields[0](x.long()))
    refused(lambda: TensorChebyshev((3, 2), box)(x[..., :1]))

    batch = stack_patches([scene(seed=1), scene(seed=2)])
    for kind in LOSSES.values():
        mean_loss(kind(), guess(batch), batch).backward()
    spec = FeatureSpec()
    network = build_model("unet", {"channels_in": spec.channels, "channels_out": 3, "widths": [4]})
    predict(network, batch.planes, spec, batch.unit_nm)
    decimate(batch, 2, spec), recorrupt(batch, 1.0)
    refused(lambda: predict(network, batch.planes, spec, batch.unit_nm[:, None]))
    refused(lambda: type(batch)(batch.planes, batch.unit_nm, batch.half_wave_nm[:1], batch.place))
    refused(lambda: LOSSES["height"]().value(guess(batch), batch, batch.planes.valid[0]))

    for recipe, more in (
        ("default", {}), ("trained", {}), ("natural-gradient", {}), ("ssbroyden", {}), ("levenberg-marquardt", {}),
        ("gradient-descent", {"direction": "config"}), ("adam", {"direction": "dcgd", "balancer": "annealing"}),
    ):
        solve("helmholtz-1d", recipe=recipe, settings=SolveSettings(1e4, steps=2, **more))
    refused(lambda: conflict_free(torch.ones(3, dtype=torch.float64)))
    refused(lambda: half_squares(torch.ones(3, 2)))
    print("checked")
"""


def test_signatures_are_checked():
    code = textwrap.dedent(CHECKED)
    done = subprocess.run([sys.executable, "-c", code, str(TESTS)], capture_output=True, text=True, timeout=300)
    assert done.stdout == "checked\n", done.stderr[-2000:]
