"""The verbs ``train`` and ``finetune``: image models from stacks."""

from __future__ import annotations

import argparse
import sys
from typing import Any


def add(parser: argparse.ArgumentParser) -> None:
    """train an image model as a config file says (for reconstruct --method learned)"""
    parser.add_argument(
        "config", metavar="CONFIG.toml", help="tables [data], [model], [loss], ...: see docs/how-to/train.md"
    )
    _common(parser, _train)


def add_finetune(parser: argparse.ArgumentParser) -> None:
    """fit an image model to one's own frames; no truth is needed"""
    parser.add_argument("model", metavar="MODEL", help="NAME of NAME.safetensors and NAME.json, or a shipped model")
    parser.add_argument("stack", metavar="STACK", help="a stack, as reconstruct takes it, or a folder of stacks")
    parser.add_argument("--steps", type=int, metavar="N", help="at most so many steps (default: 300)")
    parser.add_argument("--seconds", type=float, metavar="S", help="at most so many seconds (default: no limit)")
    parser.add_argument("--rate", type=float, help="of AdamW (default: 2e-4)")
    parser.add_argument("--batch", type=int, metavar="N", help="patches of a step (default: 4)")
    parser.add_argument(
        "--size", type=int, metavar="PX", help="side of a patch (default: 128, or a quarter of smaller images)"
    )
    parser.add_argument(
        "--held-out-share", type=float, metavar="X", help="last rows that judge (default: 0.125, or a patch)"
    )
    parser.add_argument("--recorrupt", type=float, metavar="X", help="share of noise added to frames (default: 1)")
    parser.add_argument("--anchor", type=float, metavar="X", help="weight of keeping the other answers (default: 0.01)")
    parser.add_argument("--precision", help="off or bf16, on CUDA also fp16 (default: off)")
    parser.add_argument("--device", help="auto, cpu or cuda (default: auto)")
    parser.add_argument("--seed", type=int, help="of patches and noise (default: 0)")
    parser.add_argument("--cache", metavar="DIR", help="folder for height maps of the stacks (default: cache)")
    parser.add_argument("--keep-worse", action="store_true", default=None, help="write a model that got no better, too")
    _common(parser, _finetune)


_SETTINGS = (
    *("steps", "seconds", "rate", "batch", "size", "held_out_share", "recorrupt", "anchor", "precision", "device"),
    *("seed", "cache", "keep_worse"),
)


def _common(parser: argparse.ArgumentParser, run: Any) -> None:
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="writes OUT.safetensors and OUT.json")
    parser.add_argument("--resume", action="store_true", help="go on with a run that was stopped")
    parser.add_argument("--overwrite", action="store_true", help="replace a model that exists")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout and nothing else there")
    parser.set_defaults(run=run, tell=_tell)


def _train(given: argparse.Namespace) -> dict[str, Any]:
    from cpikan.pipeline.training.train import train

    return _noted(train(given.config, given.output, resume=given.resume, overwrite=given.overwrite))


def _finetune(given: argparse.Namespace) -> dict[str, Any]:
    from cpikan.pipeline.training.finetune import FinetuneSettings, finetune

    settings = FinetuneSettings(
        **{name: getattr(given, name) for name in _SETTINGS if getattr(given, name) is not None}
    )
    found = finetune(given.model, given.stack, given.output, settings, resume=given.resume, overwrite=given.overwrite)
    return _noted(found)


def _noted(result: dict[str, Any]) -> dict[str, Any]:
    if result["rank"] > 0:  # of several processes one tells
        raise SystemExit(0)
    if result["already_finished"]:
        print(f"cpikan: {result['output']} is already finished: nothing was done", file=sys.stderr)
    return result


def _tell(result: dict[str, Any]) -> str:
    loss = "-" if result["loss"] is None else f"{result['loss']:.4g}"
    lines = [
        f"output     {result['output']} ({result['parameters']} parameters)",
        f"stopped    {result['stop_reason']}",
        f"loss       {loss} after {result['steps']} steps ({result['epochs']:.2f} epochs)",
    ]
    validation = result["validation"]
    if validation:
        lines.append(f"held out   loss {validation['loss']:.4g}{_figures(validation)}")
    if "changed" in result:
        physics = result["changed"]["physics"]
        lines.append(f"physics    {physics['before']:.6g} before, {physics['after']:.6g} after (held-out rows)")
    lines.append(
        f"time       {result['seconds']:.1f} s ({result['samples_per_second']:.1f} patches/s), "
        f"memory {result['peak_anonymous_mib']:.0f} MiB"
    )
    return "\n".join(lines)


def _figures(validation: dict[str, Any]) -> str:
    named = {
        "noise_ratio": "noise {:.3f} of the guide's",
        "coverage_95": "coverage {:.3f}",
        "wrong_orders_found": "wrong orders found {:.3f}",
        "false_orders": "false alarms {:.2g}",
    }
    return "".join(f", {text.format(validation[key])}" for key, text in named.items() if validation[key] is not None)
