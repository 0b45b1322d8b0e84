"""The command line: parse, call, print."""

from __future__ import annotations

import argparse
import difflib
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from cpikan import __version__, cli_compare, cli_evaluate, cli_solve, cli_train
from cpikan.errors import InputError, unknown_name

_INTERRUPTED = 130


class _Parser(argparse.ArgumentParser):
    """Errors are raised, so that every message leaves by the same door."""

    def error(self, message: str) -> NoReturn:
        if message.startswith("unrecognized arguments: "):
            given = message.split(": ", 1)[1].split()[0]
            near = difflib.get_close_matches(given, list(self._option_string_actions), n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            message = f"unknown argument {given!r}{hint}"
        raise InputError(f"{message} (see {self.prog} --help)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code: 0, 2 for bad input (one line on stderr), 130 after Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        parsed = _parse(given)
        result = parsed.run(parsed)
        _show(result, parsed)
    except InputError as failure:
        print(f"cpikan: error: {' '.join(str(failure).split())}", file=sys.stderr)  # one line, whatever it quotes
        return failure.exit_code
    except BrokenPipeError:  # the reader of our output has seen enough
        sys.stderr.close()
        return 0
    except OSError as failure:
        name = f" {failure.filename}" if failure.filename else ""
        print(f"cpikan: error:{name} {failure.strerror or failure}: check the path and its rights", file=sys.stderr)
        return InputError.exit_code
    except KeyboardInterrupt:
        print("cpikan: stopped; what is finished stays, go on with --resume", file=sys.stderr)
        return _INTERRUPTED
    return 0


def _parse(given: list[str]) -> argparse.Namespace:
    parser = _Parser(prog="cpikan", description="Frames of an interferometer to height maps with an uncertainty.")
    parser.add_argument("--version", action="version", version=f"cpikan {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", parser_class=_Parser)
    for name, add in _VERBS.items():
        add(verbs.add_parser(name, help=add.__doc__, description=add.__doc__, allow_abbrev=False))
    if not given:
        parser.print_help(sys.stderr)
        raise InputError(f"no command given: allowed are {', '.join(_VERBS)}")
    if not given[0].startswith("-") and given[0] not in _VERBS:
        raise unknown_name("command", given[0], _VERBS)
    parsed, rest = parser.parse_known_args(given)
    if rest:
        chosen = verbs.choices[parsed.verb] if parsed.verb else parser
        chosen.error(f"unrecognized arguments: {' '.join(rest)}")
    if not parsed.verb:
        raise InputError(f"no command given: allowed are {', '.join(_VERBS)}")
    return parsed


def _show(result: dict[str, Any], parsed: argparse.Namespace) -> None:
    if parsed.json:
        from cpikan.storage.atomic import plain

        print(json.dumps(plain(result), allow_nan=False))
    else:
        print(parsed.tell(result))


# --- verbs: one function adds the arguments, one runs, one tells -----------------------------------------------------


def _common(parser: argparse.ArgumentParser, run: Callable[..., Any], tell: Callable[..., str]) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout and nothing else there")
    parser.set_defaults(run=run, tell=tell)


def _add_demo(parser: argparse.ArgumentParser) -> None:
    """simulate a wafer, reconstruct it, compare it with the truth, write a report"""
    parser.add_argument("-o", "--output", default="demo", metavar="DIR", help="folder to write (default: demo)")
    parser.add_argument("--small", action="store_true", help="an eighth of 9344 x 7000 on a side")
    parser.add_argument("--overwrite", action="store_true", help="replace what is in the folder")
    _common(parser, _demo, _tell_demo)


def _demo(given: argparse.Namespace) -> dict[str, Any]:
    from cpikan.report.demo import run_demo

    return run_demo(given.output, small=given.small, overwrite=given.overwrite)


def _tell_demo(result: dict[str, Any]) -> str:
    return f"{_tell_reconstruct(result['reconstruct'])}\n{cli_evaluate.tell(result['evaluate'])}\nreport     {result['report']}"


def _add_simulate(parser: argparse.ArgumentParser) -> None:
    """write simulated frames: frames.npy, acquisition.toml, truth.npy (nm)"""
    parser.add_argument("output", metavar="OUT", help="folder to write")
    parser.add_argument("--shape", default="1024x1024", metavar="HxW", help="rows x columns (default: 1024x1024)")
    parser.add_argument("--wavelength", nargs="+", action="extend", metavar="LENGTH", help="with unit, such as 632.8nm")
    parser.add_argument("--frames", type=_whole, metavar="N", help="frames per wavelength (default: 4)")
    parser.add_argument(
        "--phase-steps", metavar="DEG,...", help="cumulative steps instead of N equal ones; ; between wavelengths"
    )
    parser.add_argument("--seed", type=_whole, default=0, help="another seed, another wafer (default: 0)")
    parser.add_argument("--bit-depth", type=_whole, default=8, help="8 to 16 (default: 8)")
    parser.add_argument("--surface", default="wafer", help="wafer, smooth, etched or bumps (default: wafer)")
    parser.add_argument("--pixel-size", metavar="LENGTH", help="with unit; default: the whole wafer in the frame")
    for flag, what in _FAULTS.items():
        parser.add_argument(flag, type=_number, metavar="X", help=what)
    parser.add_argument("--no-shot-noise", action="store_true", help="no shot noise")
    parser.add_argument("--resume", action="store_true", help="go on with a run that was stopped")
    parser.add_argument("--overwrite", action="store_true", help="replace what is in the folder")
    _common(parser, _simulate, _tell_simulate)


_FAULTS = {
    "--read-noise": "read noise in DN rms (default: that of a 65-megapixel sensor)",
    "--step-error": "phase step error in degrees rms",
    "--piston": "piston per frame in rad rms",
    "--tilt": "tilt per frame in rad rms at the edge",
    "--vignetting": "loss of light and of contrast at the corner, 0 to 1",
    "--exposure": "factor on the light; above about 1.1 fringes saturate",
    "--second-harmonic": "detector nonlinearity, fraction of B",
    "--third-harmonic": "detector nonlinearity, fraction of B",
    "--gain-drift": "relative gain per frame, rms",
    "--dead": "fraction of dead pixels",
    "--wavelength-piston": "relative piston between wavelengths in rad rms",
    "--wavelength-tilt": "relative tilt between wavelengths in rad rms at the edge",
}
_FAULT_FIELDS = {
    "read_noise": ("read_noise_dn",),
    "step_error": ("step_error_deg",),
    "piston": ("piston_rad",),
    "tilt": ("tilt_rad",),
    "vignetting": ("vignetting_background", "vignetting_modulation"),
    "exposure": ("exposure",),
    "second_harmonic": ("second_harmonic",),
    "third_harmonic": ("third_harmonic",),
    "gain_drift": ("gain_drift",),
    "dead": ("dead_fraction",),
    "wavelength_piston": ("wavelength_piston_rad",),
    "wavelength_tilt": ("wavelength_tilt_rad",),
}


def _simulate(given: argparse.Namespace) -> dict[str, Any]:
    from cpikan.pipeline.simulation.simulate import simulate
    from cpikan.pipeline.simulation.simulation_flags import simulation_settings

    faults = {
        name: getattr(given, flag)
        for flag, names in _FAULT_FIELDS.items()
        for name in names
        if getattr(given, flag) is not None
    }
    settings = simulation_settings(
        shape=given.shape,
        wavelengths=given.wavelength,
        frames=given.frames,
        phase_steps=given.phase_steps,
        pixel_size=given.pixel_size,
        plain={"seed": given.seed, "bit_depth": given.bit_depth, "surface": given.surface},
        instrument={**faults, "shot_noise": not given.no_shot_noise},
    )
    return simulate(given.output, settings, overwrite=given.overwrite, resume=given.resume)


def _tell_simulate(result: dict[str, Any]) -> str:
    if result["already_finished"]:
        return f"{result['output']} is already finished"
    shape = " x ".join(str(n) for n in result["shape"])
    return (
        f"{result['output']}: frames {shape}, PV {result['pv_nm']:.1f} nm, RMS {result['rms_nm']:.1f} nm, "
        f"{result['seconds']:.1f} s ({result['megapixels_per_second']:.1f} MPix/s)"
    )


def _stack_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("stack", metavar="STACK", help="folder of images, .npy, .tif, .zarr or file.h5::/dataset")
    parser.add_argument("--wavelength", nargs="+", action="extend", metavar="LENGTH", help="with unit, such as 632.8nm")
    parser.add_argument("--phase-steps", metavar="DEG,...", help="cumulative degrees, such as 0,90,180,270; or unknown")
    parser.add_argument("--steps", metavar="STATE", help="what the steps are worth: trusted, nominal or unknown")
    parser.add_argument("--pixel-size", metavar="LENGTH", help='lateral sampling, such as "5 um"')
    parser.add_argument("--bit-depth", type=_whole, help="significant bits of a sample (default: the type's)")


def _open(given: argparse.Namespace) -> Any:
    from cpikan.pipeline.stacks.stack import open_stack

    return open_stack(
        given.stack,
        wavelengths=given.wavelength,
        phase_steps=given.phase_steps,
        steps=given.steps,
        pixel_size=given.pixel_size,
        bit_depth=given.bit_depth,
    )


def _add_info(parser: argparse.ArgumentParser) -> None:
    """what was understood of a stack, what would be done, disk and memory needed"""
    _stack_arguments(parser)
    _common(parser, _info, _tell_info)


def _info(given: argparse.Namespace) -> dict[str, Any]:
    from cpikan.pipeline.reconstruction.estimate import estimate_run
    from cpikan.pipeline.stacks.describe import describe_stack

    with _open(given) as stack:
        return {**describe_stack(stack), **estimate_run(stack)}


def _tell_info(result: dict[str, Any]) -> str:
    from cpikan.pipeline.reconstruction.estimate import format_estimate
    from cpikan.pipeline.stacks.describe import format_description

    return f"{format_description(result)}\n{format_estimate(result)}"


def _add_reconstruct(parser: argparse.ArgumentParser) -> None:
    """frames to a height map with an uncertainty"""
    _stack_arguments(parser)
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help=".npy, .tif or .zarr")
    parser.add_argument(
        "--method",
        default="auto",
        help="auto, pixel, hybrid (orders decided with the neighbours and a fitted surface; one wavelength: also across "
        "gaps), field (that surface itself) or learned (hybrid, then a network that takes noise off); default: auto",
    )
    parser.add_argument(
        "--model",
        metavar="M",
        help="network of --method learned: a .safetensors file, or a shipped one (default: wafer)",
    )
    parser.add_argument(
        "--scheme", default="least-squares", help="least-squares, carre, schwider-hariharan, de-groot-7, 13-frame"
    )
    parser.add_argument(
        "--inpaint",
        action="store_true",
        help="guess heights in holes that do not reach the edge (flag 32); holes between components and above about "
        "230 000 pixels (1.25 GiB of memory) stay open, and the JSON counts them",
    )
    parser.add_argument(
        "--combine", default="weighted", help="height from all wavelengths (weighted) or the finest alone"
    )
    parser.add_argument(
        "--range", metavar="LENGTH", help='length of the height range, such as "27 um", centred on the data'
    )
    parser.add_argument(
        "--fit",
        metavar="EFFECTS",
        help="what differs between frames of nominal or unknown steps: tilt, defocus, gain, offset, harmonic2, harmonic3, "
        "response, or none (default: what the frames show)",
    )
    masks = parser.add_mutually_exclusive_group()
    masks.add_argument("--mask", metavar="FILE", help="pixels that count are nonzero: .npy or a grey image")
    masks.add_argument(
        "--circle", metavar="X,Y,R[,INNER]", help="pixels that count lie in this circle or annulus (pixels)"
    )
    parser.add_argument("--remove", default="", metavar="TERMS", help=f"take off the map: {cli_evaluate.FORM_HELP}")
    parser.add_argument(
        "--tile", type=_whole, help="tile of unwrapping (default: 512) or of the network (default: 512 x 1024), pixels"
    )
    parser.add_argument(
        "--overlap", type=_whole, help="overlap of tiles in pixels (default: 64, or what the network needs)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--threads", type=_whole, help="worker threads (default: one per core)")
    parser.add_argument("--band-rows", type=_whole, help="image rows per band (default: about 20 MiB of frames)")
    parser.add_argument("--all", action="store_true", help="beside a .npy height also OUT.sigma.npy and OUT.flags.npy")
    parser.add_argument("--resume", action="store_true", help="go on with a run that was stopped")
    parser.add_argument("--overwrite", action="store_true", help="replace an output that exists")
    parser.add_argument("--report", metavar="FILE.html", help="also write a page to look at")
    _common(parser, _reconstruct, _tell_reconstruct)


def _reconstruct(given: argparse.Namespace) -> dict[str, Any]:
    from cpikan.pipeline.reconstruction.reconstruct import reconstruct
    from cpikan.pipeline.reconstruction.settings import ReconstructSettings
    from cpikan.surface.aperture import Circle, Mask
    from cpikan.units import parse_length_nm

    mask = Circle.parse(given.circle) if given.circle else Mask.open(given.mask) if given.mask else None
    settings = ReconstructSettings(
        method=given.method,
        model=given.model,
        scheme=given.scheme,
        combine=given.combine,
        range_nm=parse_length_nm(given.range, "height range") if given.range else None,
        mask=mask,
        remove=_names(given.remove),
        fit=None if given.fit is None else _names(given.fit),
        inpaint=given.inpaint,
        tile=given.tile,
        overlap=given.overlap,
        device=given.device,
        all_quantities=given.all,
        threads=given.threads,
        band_rows=given.band_rows,
    )
    if given.report and not Path(given.report).absolute().parent.is_dir():
        raise InputError(f"folder of the report {given.report} does not exist: create it first")
    before = _process_seconds()
    with _open(given) as stack:
        result = reconstruct(
            stack, given.output, settings, resume=given.resume, overwrite=given.overwrite, seconds_before=before
        )
    if result.summary.get("already_finished"):
        print(f"cpikan: {given.output} is already finished: nothing was done", file=sys.stderr)
    for warning in result.summary.get("warnings", ()):
        print(f"cpikan: warning: {warning}", file=sys.stderr)
    if given.report:
        from cpikan.report.html import write_report

        write_report(given.report, result)
    return result.summary


def _process_seconds() -> float:
    """Seconds since the process started: interpreter and imports."""
    import psutil

    return max(0.0, time.time() - psutil.Process().create_time())


def _tell_reconstruct(result: dict[str, Any]) -> str:
    from cpikan.report.step_lines import step_lines

    sigma = result["sigma_nm_median"]
    lines = [
        f"output     {result['output']}",
        f"height     PV {result['pv_nm']:.2f} nm, RMS {result['rms_nm']:.2f} nm, sigma {sigma:.3g} nm (median)",
        f"pixels     {result['valid_fraction']:.2%} valid, {result['ambiguous_fraction']:.3g} of them ambiguous, "
        f"{result['components']} component{'s' if result['components'] != 1 else ''}",
        *_surface_line(result),
        *step_lines(result),
        *_ripple_line(result),
        f"time       {result['seconds']:.2f} s ({result['megapixels_per_second']:.1f} MPix/s), "
        f"memory {result['peak_anonymous_mib']:.0f} MiB",
    ]
    return "\n".join(lines)


def _surface_line(result: dict[str, Any]) -> list[str]:
    surface = result.get("surface")
    if not surface:
        return []
    pvr = "-" if surface["pvr_nm"] is None else f"{surface['pvr_nm']:.2f} nm"
    return [f"surface    PVr {pvr}, Sa {surface['sa_nm']:.2f} nm; removed: {', '.join(result['form']['removed'])}"]


def _ripple_line(result: dict[str, Any]) -> list[str]:
    ripple = result.get("ripple_mrad")
    return [f"ripple     {', '.join(f'{k}x {v:.1f}' for k, v in ripple.items())} mrad"] if ripple else []


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


_VERBS: dict[str, Callable[[argparse.ArgumentParser], None]] = {
    "demo": _add_demo,
    "simulate": _add_simulate,
    "info": _add_info,
    "reconstruct": _add_reconstruct,
    "evaluate": cli_evaluate.add,
    "compare": cli_compare.add,
    "solve": cli_solve.add,
    "train": cli_train.add,
    "finetune": cli_train.add_finetune,
}


if __name__ == "__main__":
    sys.exit(main())
