"""The picture of a data set is sharp on every screen, and follows the colours of the application."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from finished_runs import NAME, make_task

from NNSegmentLib import pipeline
from NNSegmentLib.fingerprint import Fingerprint, load_fingerprint

MODULE = Path(__file__).resolve().parents[2] / "NNSegment" / "NNSegment.py"


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    make_task(tmp_path)
    return tmp_path


@pytest.fixture
def panel(bench, root):
    panel = bench.open_module(MODULE)
    panel.choose("workspaceEdit", root)
    panel.choose("taskCombo", NAME)
    panel["planButton"].collapsed = False
    yield panel
    panel.close()
    bench.set_theme(dark=False)


def screen_of(ratio: float):
    """What a widget tells of itself on a screen with so many pixels along each of its units."""
    import qt

    label = qt.QLabel()
    return SimpleNamespace(palette=label.palette, font=label.font, devicePixelRatioF=lambda: ratio)


@pytest.mark.parametrize("ratio", [1.0, 1.5, 2.0])
def test_the_picture_has_all_the_pixels_of_the_screen_at_the_same_size(panel, root, ratio):
    from NNSegmentUI.fingerprint_picture import draw_fingerprint

    found = load_fingerprint(pipeline.folders_of(NAME, root).fingerprint)

    picture = draw_fingerprint(found, ["MRI"], 300, screen_of(ratio))

    size = picture.deviceIndependentSize()
    assert (size.width(), size.height()) == (300, 234)
    assert (picture.width(), picture.height()) == (300 * ratio, 234 * ratio)


@pytest.mark.parametrize(
    ("spacing", "told"),
    [
        ((999.0, 1.0, 1.0), ["Size (pixels)", "y 40", "x 50"]),
        ((499.5, 0.5, 0.5), ["Size (pixels)", "y 40", "x 50", "Pixel size (mm)", "y 0.5", "x 0.5"]),
        ((2.0, 0.5, 0.5), ["Size (voxels)", "z 1", "y 40", "x 50", "Voxel size (mm)", "z 2", "y 0.5", "x 0.5"]),
    ],
)
def test_planes_have_two_axes_and_pictures_no_millimetres(panel, monkeypatch, spacing, told):
    from NNSegmentUI import fingerprint_picture

    texts = []
    monkeypatch.setattr(
        fingerprint_picture._Plots, "_text", lambda _self, _x, _y, _width, text, _how: texts.append(text)
    )

    found = Fingerprint(((1, 40, 50),) * 2, (spacing,) * 2, (), 1.0)
    fingerprint_picture.draw_fingerprint(found, [], 300, screen_of(1.0))

    assert texts == told


def test_a_picture_that_cannot_be_drawn_is_painted_on_no_more(panel, monkeypatch):
    """Qt ends the program when a picture goes that is still painted on."""
    import qt
    from NNSegmentUI.fingerprint_picture import draw_fingerprint

    painters = []

    class Painter(qt.QPainter):
        def __init__(self, picture):
            super().__init__(picture)
            painters.append(self)

    monkeypatch.setattr(qt, "QPainter", Painter)
    nothing = Fingerprint((), (), (), 1.0)
    with pytest.raises(ValueError):
        draw_fingerprint(nothing, [], 300, screen_of(1.0))

    assert [painter.isActive() for painter in painters] == [False]


def test_the_picture_is_drawn_again_in_the_colours_of_another_theme(panel, bench):
    bench.set_theme(dark=False)
    light = panel["fingerprintPicture"].pixmap.toImage()

    bench.set_theme(dark=True)

    shown = panel["fingerprintPicture"].pixmap.toImage()
    assert shown != light
    panel.widget.sections["plan_section"].refresh()
    assert panel["fingerprintPicture"].pixmap.toImage() == shown
