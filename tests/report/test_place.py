"""A page never takes the place of data, and a place that takes none is found before the run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cpikan.errors import InputError
from cpikan.pipeline.jobs.job import Job, run
from cpikan.report.place import check_page
from heard_events import Heard


@pytest.mark.parametrize(
    "name", ["map.npy", "frames.tif", "acquisition.toml", "map.json", "page", "x.zarr", "x.html.bmp"]
)
def test_names_of_other_data_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"ends in \.html"):
        check_page(tmp_path / name)


def test_other_content_under_the_name_of_a_page_is_kept(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros(5))
    (tmp_path / "x.npy").rename(tmp_path / "x.html")
    (tmp_path / "link.html").symlink_to(tmp_path / "x.html")
    (tmp_path / "folder.html").mkdir()
    for name in ("x.html", "link.html", "folder.html"):
        with pytest.raises(InputError, match="is no page"):
            check_page(tmp_path / name)


@pytest.mark.parametrize("text", ["<!DOCTYPE html>\n<html>", "  <HTML lang=en>", ""])
def test_a_page_may_be_replaced(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.HTM").write_text(text)
    assert check_page(tmp_path / "p.HTM") == tmp_path / "p.HTM"
    assert [path.name for path in tmp_path.iterdir()] == ["p.HTM"], "nothing is left of the trial"


def test_a_folder_that_takes_no_file_is_found_before_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**told: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("cpikan.report.place.tempfile.TemporaryFile", refuse)
    job = Job(
        "reconstruct", str(tmp_path / "no such frames"), str(tmp_path / "a.npy"), {"report": str(tmp_path / "a.html")}
    )
    with pytest.raises(InputError, match="Read-only file system"):
        run(job, Heard())


@pytest.mark.parametrize("name", ["m.npy", "m.json", "m.sigma.npy", "../{}/m.npy"])
def test_a_report_over_the_output_is_left_out_and_said(wafer_folder: Path, tmp_path: Path, name: str) -> None:
    events, page = Heard(), tmp_path / name.format(tmp_path.name)
    run(
        Job("reconstruct", str(wafer_folder), str(tmp_path / "m.npy"), {"report": str(page), "method": "pixel"}), events
    )
    assert any("no page is written" in text for text in events.warnings)
    assert np.load(tmp_path / "m.npy").shape == (160, 200)
    assert (tmp_path / "m.json").read_text().startswith("{")
