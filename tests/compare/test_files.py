"""Where documents are written, and what is said before if they can't be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from common.errors import ConfigurationError
from compare.files import check_writable


def test_what_is_there_stays_as_it_is(tmp_path: Path) -> None:
    """The trial leaves a file as it was, and makes none."""
    there, new, link = tmp_path / "there", tmp_path / "new", tmp_path / "link"
    there.write_text("kept")
    link.symlink_to(tmp_path / "nowhere-yet")
    for path in (there, new, link):
        check_writable("--json", str(path))
    assert there.read_text() == "kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "there"]


def test_whoever_reads_a_pipe_is_not_disturbed(tmp_path: Path) -> None:
    """To open a pipe would wait for its reader, and to close it would tell that reader that all is over."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    check_writable("--json", str(pipe))
    check_writable("--json", os.devnull)


def test_what_can_not_be_written_is_named(tmp_path: Path) -> None:
    """A folder, a place in none, and a link to itself."""
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for path in (tmp_path, tmp_path / "no" / "file", loop):
        with pytest.raises(ConfigurationError, match=f"--json {path}: can't be written: "):
            check_writable("--json", str(path))
