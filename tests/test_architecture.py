"""The house: floors, what is never imported or called, and how fast the package is there."""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import cpikan
from small_stacks import folder_of

ROOT = Path(cpikan.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))
FLOORS = {  # docs: the house; a module imports from its own floor or below
    **dict.fromkeys(
        [
            "turn",
            "compiled",
            "errors",
            "masked",
            "messages",
            "notebook",
            "option",
            "units",
            "version",
            "metrics",
            "order_statistics",
            "partition",
            "storage",
        ],
        0,
    ),
    "streaming": 1,
    "fields": 2,
    "physics": 3,
    "learning": 4,
    "psi": 5,
    "surface": 5,
    "registration": 5,
    "wafer": 5,
    "images": 6,
    "pipeline": 7,
    "report": 8,
    "viewer": 8,
    "doctor": 8,
    "napari_plugin": 8,
    "pipeline.jobs": 9,  # a job also writes the report
    "fleet": 10,
    "cli": 11,
    "__main__": 12,
}
INNER_FLOORS = {  # the same inside a room
    "pipeline": {"stacks": 0, "maps": 1, "simulation": 1, "reconstruction": 2, "training": 3, "jobs": 4},
    "surface": {"apertures": 0, "filters": 0, "spectra": 0, "forms": 1, "areal": 1, "profiles": 2, "sums": 2},
    "psi": {"model": 0, "kernels": 1, "simulate": 1, "calibration": 2, "unwrap": 2, "refine": 3, "warm": 4},
}
MOST_INSIDE = 7  # files and folders directly in a room of rooms
ROOMS = {path.name.removesuffix(".py") for path in ROOT.iterdir() if path.suffix == ".py" or path.is_dir()}
LINES = 450
MOST_PARAMETERS, MOST_OF_A_KERNEL = 7, 10


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _room(path: Path) -> str:
    first = path.relative_to(ROOT).parts[0]
    return first.removesuffix(".py")


def each(paths: Sequence[Path]) -> Callable[[Callable[[Path], None]], Callable[[], None]]:
    """Make one test of a check of many modules, which names all that fail it."""

    def over(check: Callable[[Path], None]) -> Callable[[], None]:
        def test() -> None:
            failed = []
            for path in paths:
                try:
                    check(path)
                except AssertionError as error:
                    failed.append(f"{_name(path)}: {error}")
            assert failed == []

        return test

    return over


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def _imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in the file; relative imports made absolute."""
    package = ["cpikan", *path.relative_to(ROOT).parts[:-1]]
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*package[: len(package) - node.level + 1], *([base] if base else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


@each(MODULES)
def test_nothing_imports_upwards(path):
    room = _room(path)
    if room == "__init__":  # the door names what lives on every floor, and loads it on first use
        return
    assert room in FLOORS, f"{room} has no floor: give it one in the design and here"
    for target in _imports(path):
        parts = target.split(".")
        if parts[0] == "cpikan" and len(parts) > 1 and parts[1] in ROOMS:
            assert _floor(parts[1:]) <= _floor(_module(path)), f"{_name(path)} imports {target}"


def _module(path: Path) -> tuple[str, ...]:
    return path.relative_to(ROOT).with_suffix("").parts


def _floor(module: Sequence[str]) -> int:
    """Floor of a module, named by its parts: that of the inner room where this has one of its own."""
    return FLOORS.get(".".join(module[:2]), FLOORS[module[0]])


@each([p for p in MODULES if _room(p) in INNER_FLOORS])
def test_nothing_imports_upwards_inside_a_room(path):
    room, *inside = path.relative_to(ROOT).with_suffix("").parts
    floors = INNER_FLOORS[room]
    if inside == ["__init__"]:
        return
    assert inside[0] in floors, f"{_name(path)} has no floor in {room}"
    for target in _imports(path):
        parts = target.split(".")
        if parts[:2] == ["cpikan", room] and len(parts) > 2:
            assert floors[parts[2]] <= floors[inside[0]], f"{_name(path)} imports {target}"
            same = floors[parts[2]] == floors[inside[0]]
            assert parts[2] == inside[0] or not same, f"{_name(path)} imports {target}, a neighbour of its own floor"


@pytest.mark.parametrize("room", INNER_FLOORS)
def test_a_room_of_rooms_has_few_doors(room):
    found = {path.name for path in (ROOT / room).iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert len(found - {"__init__.py"}) <= MOST_INSIDE


def test_rooms_below_the_door_do_not_import_it_for_more_than_its_version():
    for path in MODULES:
        uses = {
            node.attr
            for node in ast.walk(_tree(path))
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "cpikan"
        }
        assert uses <= {"__version__"}, f"{_name(path)} takes {uses} from the door instead of from its room"


@each(MODULES)
def test_no_code_from_data(path):
    """No pickle, eval, exec, torch.load or YAML; NumPy files are read with pickles off."""
    banned = {"pickle", "cPickle", "dill", "joblib", "marshal", "shelve", "yaml", "cloudpickle"}
    for target in _imports(path):
        assert target.split(".")[0] not in banned, f"{_name(path)} imports {target}"
    for node in ast.walk(_tree(path)):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        assert called not in {"eval", "exec", "compile", "__import__", "torch.load", "os.system"}, (
            f"{_name(path)}: {called}"
        )
        if called in {"np.load", "numpy.load"}:
            options = {keyword.arg: keyword.value for keyword in node.keywords}
            assert isinstance(options.get("allow_pickle"), ast.Constant), f"{_name(path)}: np.load without allow_pickle"
            assert options["allow_pickle"].value is False
        shell = [keyword for keyword in node.keywords if keyword.arg == "shell"]
        assert not shell, f"{_name(path)}: shell"


@each(MODULES)
def test_every_module_says_what_it_is_and_stays_small(path):
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert ast.get_docstring(tree), f"{_name(path)} has no docstring"
    assert text.count("\n") <= LINES, f"{_name(path)} has {text.count(chr(10))} lines"
    if any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in tree.body):
        futures = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == "__future__"]
        assert futures, f"{_name(path)} lacks from __future__ import annotations"
    for word in ("TODO", "FIXME", "XXX", "NotImplementedError"):
        assert word not in text, f"{_name(path)} holds {word}"


@each(MODULES)
def test_functions_take_few_parameters(path):
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = [one.arg for one in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            count = len(given) - (given[:1] in (["self"], ["cls"]))
            kernel = any(
                word in ast.unparse(one) for one in node.decorator_list for word in ("compiled", "jit", "inlined")
            )
            assert count <= (MOST_OF_A_KERNEL if kernel else MOST_PARAMETERS), (
                f"{_name(path)}: {node.name} takes {count}"
            )


COST = re.compile(r"0\.5 \* [^#\n]*\.(square\(\)|pow\(2\))\.sum|half_squares = ")


def test_the_cost_of_residuals_is_written_out_once():
    found = [
        _name(path) for path in MODULES if _room(path) in ("learning", "physics") and COST.search(path.read_text())
    ]
    assert found == ["learning/objective.py"]


def test_methods_of_a_reconstruction_are_told_apart_in_one_place():
    names = r"[\"'](pixel|hybrid|field|learned)[\"']"
    compared = re.compile(rf"(==|!=| in \(?) ?{names}|{names} (==|!=) ")
    room = ROOT / "pipeline" / "reconstruction"
    assert not [_name(path) for path in room.rglob("*.py") if compared.search(path.read_text())]


def test_public_names_resolve():
    for name in cpikan.__all__:
        assert getattr(cpikan, name) is not None
    assert set(cpikan.__all__) <= set(dir(cpikan))
    assert {"open_stack", "reconstruct", "FrameStack", "HeightMap", "InputError"} <= set(cpikan.__all__)
    with pytest.raises(AttributeError):
        cpikan.no_such_name  # noqa: B018


@each([p for p in MODULES if "cuda" not in p.name and "torch" not in p.name])
def test_every_module_imports_on_its_own(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts[-1] != "__main__":
        importlib.import_module(".".join(("cpikan", *parts)).removesuffix(".__init__"))


def _loaded(code: str, *arguments: str) -> dict:
    """Run code in an interpreter of its own; it prints a JSON object on the last line."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_import_loads_nothing_heavy():
    code = """
        import sys, json
        before = set(sys.modules)
        import cpikan
        heavy = ["numpy", "numba", "torch", "scipy", "zarr", "h5py", "matplotlib", "tifffile", "PIL", "psutil"]
        print(json.dumps({"new": len(set(sys.modules) - before), "heavy": [n for n in heavy if n in sys.modules]}))
    """
    found = _loaded(code)
    assert found["heavy"] == []
    assert found["new"] < 100  # modules, each a millisecond or less: far below the 0.3 s that an import may take


def test_help_loads_nothing_heavy_either():
    code = """
        import sys, json
        from cpikan.cli import main
        try:
            main(["reconstruct", "--help"])
        except SystemExit:
            pass
        heavy = ["numba", "torch", "scipy", "zarr", "h5py", "matplotlib", "tifffile", "PIL"]
        print(json.dumps({"heavy": [name for name in heavy if name in sys.modules]}))
    """
    assert _loaded(code)["heavy"] == []


@pytest.mark.skipif(any(Path("/dev").glob("nvidia[0-9]*")), reason="a CUDA device is there, and auto asks torch for it")
def test_the_pixel_path_never_imports_torch(wafer_folder, mirror, tmp_path):
    one = folder_of(tmp_path / "one", np.asarray(mirror.frames), mirror.wavelengths_nm, (0, 90, 180, 270, 360))
    code = """
        import sys, json
        import cpikan
        from cpikan.cli import main
        place, one, four = sys.argv[1:]
        assert main(["reconstruct", one, "-o", f"{place}/one.npy"]) == 0
        assert main(["reconstruct", four, "-o", f"{place}/four.zarr"]) == 0
        cpikan.reconstruct(cpikan.open_stack(four), f"{place}/again.npy", progress=False)
        print(json.dumps({"loaded": [n for n in ("torch", "h5py", "matplotlib", "PIL") if n in sys.modules]}))
    """
    assert _loaded(code, str(tmp_path), str(one), str(wafer_folder))["loaded"] == []


def test_files_of_tests_have_names_of_their_own():
    """pytest imports them by name alone, whatever their folder."""
    names = [path.name for path in Path(__file__).parent.rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
