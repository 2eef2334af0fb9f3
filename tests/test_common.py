"""What every room shares: files that appear whole, with the rights that the umask gives."""

import os
import stat
from pathlib import Path

import pytest

from timescope_lite.common import UserError, atomic_path, read_json, write_json


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask to speak of")
@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077, 0o027])
def test_written_files_follow_the_umask(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        path = write_json(tmp_path / "new.json", {"a": 1})
        write_json(path, {"a": 2})  # and a file that replaces one
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


def test_nothing_is_left_of_a_file_that_failed(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "a.json") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_json_with_a_byte_order_mark_is_json(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": 1}', encoding="utf-8-sig")
    assert read_json(tmp_path / "a.json", "file") == {"a": 1}
    with pytest.raises(UserError, match="is a folder"):
        read_json(tmp_path, "file")
