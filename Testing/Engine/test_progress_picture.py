"""The picture beside a training never ends it."""

from __future__ import annotations

import pytest

from NNSegmentLib.engine.trainer import ProgressPicture
from NNSegmentLib.errors import StorageError
from NNSegmentLib.folders import FoldFolder
from NNSegmentLib.run import EpochFinished, Run

pytest.importorskip("matplotlib", reason="the picture is drawn with matplotlib")


def test_a_picture_that_cannot_be_written_is_drawn_after_the_next_epoch(tmp_path, monkeypatch):
    run = Run(FoldFolder(tmp_path), "2d", 0)
    run.record(EpochFinished(1, 2, 0.5, 0.4, (0.7,), 0.7, 0.7, 0.01, 3.0, 3.0, 10.0))
    picture = ProgressPicture(run)

    def open_elsewhere(*_):
        raise StorageError("Cannot write progress.png (The process cannot access the file).")

    with monkeypatch.context() as viewed:
        viewed.setattr("NNSegmentLib.report.curves.draw_progress", open_elsewhere)
        picture.refresh(now=True)
    assert not run.folder.progress_picture.exists()

    picture.refresh(now=True)

    assert run.folder.progress_picture.is_file()
