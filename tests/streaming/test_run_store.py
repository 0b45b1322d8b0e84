"""The store of a run: states come back bit for bit, a kill leaves one of them whole, one process at a time."""

from __future__ import annotations

import errno
import json
import math
import os
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cpikan.errors import InputError, ResumeError
from cpikan.storage import atomic
from cpikan.storage.atomic import StorageFull
from cpikan.streaming.run_store import RunStore, remove_state
from forked import fork_that_tells

IDENTITY = {"problem": "heat", "settings": {"seed": 3, "layers": (16, 16)}}


def _resumed(folder, identity=IDENTITY, **options):
    with RunStore(folder, identity, resume=True, **options) as store:
        return store.saved


def _saved(folder, state, files=None):
    with RunStore(folder, IDENTITY, resume=True) as store:
        store.save(state, files)


def test_a_new_folder_has_no_state(tmp_path):
    assert _resumed(tmp_path / "a" / "b") is None
    with RunStore(tmp_path / "a" / "b", {"another": "run"}, resume=False) as store:  # nothing is lost by it
        assert store.saved is None


_LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text())
_KEYS = st.text(max_size=4).filter(lambda key: not key.startswith("$"))
_TREES = st.recursive(_LEAVES, lambda tree: st.lists(tree, max_size=3) | st.dictionaries(_KEYS, tree, max_size=3))


def _same(one, other):
    if isinstance(one, float) and math.isnan(one):
        return isinstance(other, float) and math.isnan(other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return type(one) is type(other) and one == other


@given(st.dictionaries(_KEYS, _TREES, max_size=4))
def test_any_tree_of_plain_data_comes_back(tmp_path_factory, state):
    folder = tmp_path_factory.mktemp("tree")
    _saved(folder, state)
    assert _same(state, _resumed(folder).state)


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.bool], ids=str
)
def test_tensors_come_back_bit_for_bit_wherever_they_stand(tmp_path, dtype):
    tensor = (torch.arange(12).reshape(3, 4) * 1.37).to(dtype)
    shared = torch.zeros(5, dtype=dtype)
    state = {
        "weights": {"a.b": tensor.T, "a/b": shared, "a": {"b": shared[2:]}},
        "moments": [(tensor, 0), (torch.nn.Parameter(torch.ones(2)), math.inf)],
        "empty": torch.empty(0, 3),
    }
    _saved(tmp_path, state)
    found = _resumed(tmp_path).state
    assert torch.equal(found["weights"]["a.b"], tensor.T)
    assert found["weights"]["a.b"].dtype is dtype
    assert found["weights"]["a.b"].is_contiguous()
    assert found["weights"]["a/b"].shape == (5,)
    assert found["weights"]["a"]["b"].shape == (3,)
    assert torch.equal(found["moments"][0][0], tensor)
    assert torch.equal(found["moments"][1][0], torch.ones(2))
    assert found["moments"][1][1] == math.inf
    assert found["empty"].shape == (0, 3)


def test_numbers_of_numpy_are_plain_ones(tmp_path):
    _saved(tmp_path, {"cost": np.float64(0.1), "count": np.int64(3), "worst": np.float64("inf")})
    assert _resumed(tmp_path).state == {"cost": 0.1, "count": 3, "worst": math.inf}


def test_files_are_kept_with_their_state(tmp_path):
    for text in ("one", "two", "three"):
        _saved(tmp_path, {"text": text}, {"field": lambda path, text=text: path.write_text(text)})
        saved = _resumed(tmp_path)
        assert saved.files["field"].read_text() == saved.state["text"] == text
    _saved(tmp_path, {})
    assert _resumed(tmp_path).files == {}


def test_a_state_is_not_lost_unsaid(tmp_path):
    _saved(tmp_path, {"step": 1})
    with pytest.raises(ResumeError, match="add --resume"):
        RunStore(tmp_path, IDENTITY, resume=False)
    assert _resumed(tmp_path).state == {"step": 1}  # untouched, and not locked any more
    remove_state(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with RunStore(tmp_path, IDENTITY, resume=False) as store:
        assert store.saved is None


def test_the_state_of_another_run_is_refused_by_name(tmp_path):
    _saved(tmp_path, {"step": 1})
    other = {"problem": "heat", "settings": {"seed": 4, "layers": [16, 16]}}
    with pytest.raises(ResumeError, match=r"settings\.seed was 3, now 4; .* or name another folder") as caught:
        _resumed(tmp_path, other)
    assert "\n" not in str(caught.value)
    head = json.loads((tmp_path / "checkpoint.json").read_text())
    head["identity"]["version"] = "0.0.1"
    (tmp_path / "checkpoint.json").write_text(json.dumps(head))
    with pytest.raises(ResumeError, match="version was"):
        _resumed(tmp_path)


@pytest.mark.parametrize("damage", ["torn json", "no tensors", "torn tensors", "another json", "another list"])
def test_a_damaged_state_is_refused_in_one_line(tmp_path, damage):
    _saved(tmp_path, {"a": torch.ones(100)})
    head, [tensors] = tmp_path / "checkpoint.json", tmp_path.glob("tensors-*")
    if damage == "torn json":
        head.write_text(head.read_text()[:-20])
    elif damage == "no tensors":
        tensors.unlink()
    elif damage == "torn tensors":
        tensors.write_bytes(tensors.read_bytes()[:-8])
    else:
        head.write_text("{}" if damage == "another json" else "[1]")
    with pytest.raises(ResumeError, match="damaged") as caught:
        _resumed(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file"):
        RunStore(tmp_path / "file", IDENTITY, resume=True)


def test_a_full_disk_leaves_the_last_state(tmp_path, monkeypatch):
    _saved(tmp_path, {"step": torch.ones(1)})

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with RunStore(tmp_path, IDENTITY, resume=True) as store:
        monkeypatch.setattr(atomic.os, "fsync", full)
        with pytest.raises(StorageFull):
            store.save({"step": torch.zeros(1)})
        monkeypatch.undo()
    assert _resumed(tmp_path).state == {"step": torch.ones(1)}


def test_a_state_is_due_after_its_time(tmp_path):
    with RunStore(tmp_path, IDENTITY, resume=False, every_s=0.0) as store:
        assert store.due
    with RunStore(tmp_path, IDENTITY, resume=False, every_s=1e9) as store:
        assert not store.due


def test_processes_that_read_need_no_lock_and_save_nothing(tmp_path):
    with RunStore(tmp_path, IDENTITY, resume=True) as owner:
        owner.save({"step": 1})
        with RunStore(tmp_path, IDENTITY, resume=True, reading=True) as other:
            assert other.saved.state == {"step": 1}
            with pytest.raises(AssertionError):
                other.save({"step": 2})
    assert RunStore(tmp_path / "nothing", IDENTITY, resume=True, reading=True).saved is None
    assert not (tmp_path / "nothing").exists()


def _work(folder):
    store = RunStore(folder, {"run": "long"}, resume=True)
    step = 0 if store.saved is None else int(store.saved.state["step"])
    while True:
        step += 1
        state = {"step": step, "wide": torch.full((1000,), float(step)), "other": [torch.tensor(step)]}
        store.save(state, {"field": lambda path, text=str(step): path.write_text(text)})
        print(step, flush=True)


FORK = pytest.mark.skipif(not hasattr(os, "fork"), reason="a fork is killed")


@FORK
def test_a_kill_at_any_time_leaves_a_whole_state(tmp_path):
    """Killed after a growing share of a save, so that kills fall between all of its writes."""
    for attempt in range(6):
        with fork_that_tells(lambda: _work(tmp_path)) as told:
            for _ in range(3):
                step = int(told.readline())
            time.sleep(0.002 * attempt)
        saved = _resumed(tmp_path, {"run": "long"})  # the lock died with the process
        assert saved.state["step"] >= step
        step = saved.state["step"]
        assert torch.equal(saved.state["wide"], torch.full((1000,), float(step)))
        assert saved.state["other"] == [torch.tensor(step)]
        assert saved.files["field"].read_text() == str(step)


@pytest.mark.parametrize("written", [0, 1, 2])
def test_a_kill_between_two_writes_leaves_the_state_before(tmp_path, monkeypatch, written):
    """The files of a save: tensors, one more file, the JSON that names both."""
    _saved(tmp_path, {"a": torch.ones(3)}, {"field": lambda path: path.write_text("1")})
    replace, done = os.replace, []

    def killed(source, target):
        if len(done) == written:
            raise KeyboardInterrupt
        done.append(target)
        replace(source, target)

    monkeypatch.setattr(atomic.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt), RunStore(tmp_path, IDENTITY, resume=True) as store:
        store.save({"a": torch.zeros(3)}, {"field": lambda path: atomic.write_text(path, "2")})
    monkeypatch.undo()
    saved = _resumed(tmp_path)
    assert torch.equal(saved.state["a"], torch.ones(3))
    assert saved.files["field"].read_text() == "1"


@FORK
def test_a_second_process_is_refused_in_one_line(tmp_path):
    with fork_that_tells(lambda: _work(tmp_path)) as told:
        told.readline()
        with pytest.raises(InputError, match="another run is writing here") as caught:
            RunStore(tmp_path, {"run": "long"}, resume=True)
        assert "\n" not in str(caught.value)
    assert _resumed(tmp_path, {"run": "long"}).state["step"] >= 1


@pytest.mark.parametrize("name", ["checkpoint.json", "tensors-1.safetensors", "field-1.safetensors"])
def test_one_changed_byte_is_damage(tmp_path, name):
    """Numbers that still read as numbers, and weights that still have their shape, are not taken for the state."""
    _saved(tmp_path, {"step": 1234.5, "w": torch.arange(40.0)}, {"field": lambda path: path.write_bytes(b"abc" * 30)})
    data = bytearray((tmp_path / name).read_bytes())
    place = data.index(b"1234.5") + 2 if name.endswith("json") else len(data) - 9
    data[place] ^= 1
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ResumeError, match="damaged"):
        _resumed(tmp_path)


@pytest.mark.parametrize("text", ['{"identity": []}', "[]", "{}", '{"identity": {"version": "x"}}', "[" * 9000])
def test_other_json_is_damage(tmp_path, text):
    (tmp_path / "checkpoint.json").write_text(text)
    with pytest.raises(ResumeError, match=r"damaged|cannot resume"):
        _resumed(tmp_path)


def test_the_state_of_a_run_that_goes_on_is_not_removed(tmp_path):
    with RunStore(tmp_path, IDENTITY, resume=False) as store:
        store.save({"step": 2})
        with pytest.raises(InputError, match="another run"):
            remove_state(tmp_path)
    assert _resumed(tmp_path).state == {"step": 2}
