"""Digests are of content, in the order of the files, whoever reads them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from prune.model.digests import SIZE, digests_of


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 64])
def test_each_file_has_its_digest_in_its_place(tmp_path: Path, count: int) -> None:
    paths = [tmp_path / f"{n}.o" for n in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]) * 1000 * number)
    wanted = [hashlib.sha256(path.read_bytes()).hexdigest()[: 2 * SIZE] for path in paths]
    assert list(digests_of(paths)) == wanted and len(set(wanted)) == count


@pytest.mark.parametrize("processors", [1, 2, 5])
def test_it_does_not_matter_how_many_read(
    tmp_path: Path, processors: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / f"{n}.o" for n in range(4)]
    for number, path in enumerate(paths):
        path.write_text(str(number))
    alone = [digests_of([path])[0] for path in paths]
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(processors)))
    assert list(digests_of(paths)) == alone


def test_content_counts_and_nothing_else(tmp_path: Path) -> None:
    one, two = tmp_path / "one.o", tmp_path / "two.o"
    one.write_bytes(b"same")
    two.write_bytes(b"same")
    before = digests_of([one, two])
    os.utime(one, (1, 1))
    assert digests_of([one, two]) == before and before[0] == before[1]
    one.write_bytes(b"samf")
    assert digests_of([one, two]) == (digests_of([one])[0], before[1]) and digests_of([one]) != before[:1]


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.o").write_bytes(b"")
    with pytest.raises(FileNotFoundError) as caught:
        digests_of([tmp_path / "a.o", tmp_path / "gone.o"])
    assert caught.value.filename == str(tmp_path / "gone.o")
