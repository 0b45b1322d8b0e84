"""Completion: the scripts are made from the parsers, and bash completes by its own."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from cpikan.cli import VERBS, main
from cpikan.cli.completion import SHELLS, flags_of_verbs, quoted


def script(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


def completed(text: str, *words: str) -> list[str]:
    """What bash offers for the last of the words after ``cpikan``."""
    line = " ".join(f"'{word}'" for word in ("cpikan", *words))
    ask = f"COMP_WORDS=({line}); COMP_CWORD={len(words)}; _cpikan; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    done = subprocess.run(["bash", "-c", f"{text}\n{ask}"], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_bash_completes_verbs_flags_and_files(capsys, tmp_path, monkeypatch):
    text = script("bash", capsys)
    assert completed(text, "rec") == ["reconstruct"]
    assert set(VERBS) <= set(completed(text, ""))
    assert completed(text, "reconstruct", "frames", "--ove") == ["--overlap", "--overwrite"]
    assert completed(text, "evaluate", "--ti") == []  # a flag of another verb
    monkeypatch.chdir(tmp_path)
    (tmp_path / "frames.npy").touch()
    assert completed(text, "info", "fra") == ["frames.npy"]


@pytest.mark.parametrize("shell", SHELLS)
def test_every_flag_of_every_verb_is_in_the_script(shell, capsys):
    text = script(shell, capsys)
    for verb, flags in flags_of_verbs().items():
        assert verb in text
        for flag in flags:
            for name in flag.names:
                assert (f"-l {name[2:]}" if shell == "fish" and name.startswith("--") else name.lstrip("-")) in text


@pytest.mark.parametrize("shell", [name for name in SHELLS if shutil.which(name)])
def test_the_shell_reads_its_script(shell, capsys):
    done = subprocess.run([shell, "-n"], input=script(shell, capsys), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_quotes_in_help_do_not_end_a_text():
    assert quoted("one's own \\ frames") == "'one’s own \\\\ frames'"


def test_another_shell_is_refused(capsys):
    assert main(["completion", "tcsh"]) == 2
    assert "allowed are bash, zsh, fish" in capsys.readouterr().err
