"""Links that whoever owns a folder leaves in it: nobody who writes there, root least of all, follows them."""

from __future__ import annotations

import pytest

from fedfsd.errors import NotReadyError
from fedfsd.ledger.disk import write_whole


@pytest.mark.parametrize("there", [True, False])
def test_a_link_in_the_place_of_a_draft_is_not_followed(tmp_path, there):
    victim = tmp_path / "victim"
    if there:
        victim.write_text("mine")
    (tmp_path / "head.note.draft").symlink_to(victim)
    with pytest.raises(NotReadyError):
        write_whole(tmp_path / "head.note", b"theirs")
    assert victim.exists() == there
    assert not there or victim.read_text() == "mine"


def test_a_link_in_the_place_of_the_file_is_replaced(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "head.note").symlink_to(victim)
    write_whole(tmp_path / "head.note", b"ours")
    assert victim.read_text() == "mine"
    assert (tmp_path / "head.note").read_bytes() == b"ours"
    assert not (tmp_path / "head.note").is_symlink()
