"""Pipes, sockets and devices are refused by name; nothing is written through a symbolic link."""

from __future__ import annotations

import os
import socket

import numpy as np
import pytest

from cpikan.errors import InputError
from cpikan.pipeline.stacks.acquisition_file import AcquisitionFlags, load_acquisition
from cpikan.storage.atomic import open_unlinked, read_json, refuse_special, write_json, write_text
from cpikan.storage.maps import open_map, open_npy, read_document
from cpikan.storage.readers.open import open_frames
from cpikan.streaming.journal import open_locked

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")


@pytest.mark.parametrize("suffix", [".npy", ".tif", ".h5", ".zarr", ".btf"])
def test_frames_in_a_named_pipe(tmp_path, suffix):
    os.mkfifo(tmp_path / f"camera{suffix}")
    name = f"{tmp_path}/camera{suffix}" + ("::/frames" if suffix == ".h5" else "")
    with pytest.raises(InputError, match="named pipe"):
        open_frames(name)


@pytest.mark.parametrize("suffix", [".npy", ".tif", ".zarr", ".dat"])
def test_heights_in_a_named_pipe(tmp_path, suffix):
    os.mkfifo(tmp_path / f"map{suffix}")
    with pytest.raises(InputError, match="named pipe"):
        open_map(tmp_path / f"map{suffix}")


def test_a_device_under_the_name_of_a_file(tmp_path):
    (tmp_path / "frames.npy").symlink_to("/dev/zero")
    with pytest.raises(InputError, match="a device"):
        open_frames(tmp_path / "frames.npy")
    with pytest.raises(InputError, match="a device"):
        open_npy(tmp_path / "frames.npy")


def test_frames_of_a_folder_that_are_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "frames.npy")
    with pytest.raises(InputError, match="neither images"):
        open_frames(tmp_path)


def test_documents_in_a_pipe(tmp_path):
    np.save(tmp_path / "h.npy", np.zeros((3, 4), np.float32))
    os.mkfifo(tmp_path / "h.json")
    for read in (read_document, read_json):
        with pytest.raises(InputError, match=r"h\.json is a named pipe"):
            read(tmp_path / "h.json")
    os.mkfifo(tmp_path / "acquisition.toml")  # is no file, so nobody said the wavelength
    with pytest.raises(InputError, match="no wavelength"):
        load_acquisition(tmp_path / "h.npy", AcquisitionFlags())


def test_a_socket(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a name of a socket is short
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("s.npy")
        with pytest.raises(InputError, match="a socket"):
            refuse_special("s.npy")


def test_what_is_not_there_is_left_to_others(tmp_path):
    refuse_special(tmp_path / "nothing")
    refuse_special("a\0b")
    refuse_special(tmp_path)


def test_nothing_is_written_through_a_link(tmp_path):
    precious = tmp_path / "precious.txt"
    precious.write_text("measured for a week")
    for name in ("out.npy.journal", "out.json.tmp"):
        (tmp_path / name).symlink_to(precious)
    with pytest.raises(InputError, match="symbolic link"):
        open_locked(tmp_path / "out.npy.journal")
    with pytest.raises(InputError, match="symbolic link"):
        write_json(tmp_path / "out.json", {"a": 1})
    assert precious.read_text() == "measured for a week"


def test_a_link_to_nothing_makes_no_file(tmp_path):
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="symbolic link"):
        open_locked(tmp_path / "lock")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR])
def test_a_pipe_in_place_of_a_file_to_write(tmp_path, flags):
    os.mkfifo(tmp_path / "out.tmp")
    with pytest.raises(InputError, match="named pipe"):
        open_unlinked(tmp_path / "out.tmp", flags)


def test_names_that_no_encoding_has_are_written_as_escapes(tmp_path):
    write_json(tmp_path / "d.json", {"source": "frames-\udcff\udc80"})
    assert (tmp_path / "d.json").read_bytes().isascii()
    assert read_json(tmp_path / "d.json") == {"source": "frames-\udcff\udc80"}
    write_text(tmp_path / "page.html", "<p>\udcff</p>")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == "<p>\\udcff</p>"
