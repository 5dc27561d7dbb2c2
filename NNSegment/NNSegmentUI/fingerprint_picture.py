"""Small plots of a data set, drawn with the panel's own colours: sizes, voxel sizes, intensities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

import qt
from slicer.i18n import tr as _

HEIGHT, GAP, TEXT = 112, 10, 14
"""Pixels: a plot, between plots, a line of text."""
AXES = ("z", "y", "x")
_DOT = 4.0


def draw_fingerprint(fingerprint, channels: Sequence[str], width: int, widget, palette=None):
    """A pixmap `width` wide: a dot per case, a line at the median; for intensities a bar per case.

    Its colours are the widget's, unless a palette is given. Sizes are those of the widget's coordinates, each of which
    is several pixels on a screen of high resolution.
    """
    rows, ratio = 1 + math.ceil(len(channels) / 2), widget.devicePixelRatioF()
    height = rows * (HEIGHT + GAP) - GAP
    pixmap = qt.QPixmap(round(width * ratio), round(height * ratio))
    pixmap.setDevicePixelRatio(ratio)
    pixmap.fill(qt.QColor(0, 0, 0, 0))
    painter = qt.QPainter(pixmap)
    try:
        painter.setRenderHint(qt.QPainter.Antialiasing, True)
        colors = widget.palette if palette is None else palette
        _Plots(painter, widget.font, colors).draw(fingerprint, channels, width)
    finally:
        painter.end()  # a pixmap that goes while it is painted on takes Slicer with it
    return pixmap


class _Plots:
    """Draws with one painter in the colours of one palette."""

    def __init__(self, painter, font, palette) -> None:
        self._painter = painter
        self._ink, self._accent = palette.color(qt.QPalette.WindowText), palette.color(qt.QPalette.Highlight)
        font = qt.QFont(font)
        font.setPixelSize(10)
        painter.setFont(font)

    def draw(self, fingerprint, channels: Sequence[str], width: int) -> None:
        half, planes = (width - GAP) // 2, fingerprint.are_planes
        sizes = [case.shape for case in fingerprint.cases] or fingerprint.shapes_after_crop
        room = width if fingerprint.are_pictures else half  # pixels of pictures have no size
        self._strips(0, 0, room, _("Size (pixels)") if planes else _("Size (voxels)"), [s[planes:] for s in sizes])
        if not fingerprint.are_pictures:
            title = _("Pixel size (mm)") if planes else _("Voxel size (mm)")
            self._strips(half + GAP, 0, half, title, [s[planes:] for s in fingerprint.spacings_mm])
        for number, name in enumerate(channels):
            x, y = (half + GAP) * (number % 2), (HEIGHT + GAP) * (1 + number // 2)
            wide = width if number % 2 == 0 and number == len(channels) - 1 else half
            bars = [case.channels[number].percentiles for case in fingerprint.cases if case.channels]
            self._bars(x, y, wide, _("Intensities of the labels: {channel}").format(channel=name), bars)

    def _strips(self, x: int, y: int, width: int, title: str, values: Sequence[Sequence[float]]) -> None:
        """A column per axis (z, y, x), or (y, x)."""
        self._frame(x, y, width, title)
        top = max(max(value) for value in values) * 1.08
        axes = AXES[-len(values[0]) :]
        column = width / len(axes)
        for axis, name in enumerate(axes):
            own = sorted(value[axis] for value in values)
            left = x + column * axis
            for number, value in enumerate(own):
                place = left + column * (0.3 + 0.4 * (number + 0.5) / len(own))
                self._dot(place, self._height(y, value, 0, top))
            self._median_line(left + column * 0.22, column * 0.56, self._height(y, median(own), 0, top))
            label = f"{name} {median(own):.3g}"
            self._text(left, y + HEIGHT - TEXT, column, label, qt.Qt.AlignHCenter)

    def _bars(self, x: int, y: int, width: int, title: str, cases: Sequence[Sequence[float]]) -> None:
        """Per case: a thin line from the 0.5th to the 99.5th percentile, a thick one over the middle half."""
        self._frame(x, y, width, title)
        if not cases:
            return
        low, high = min(case[0] for case in cases), max(case[-1] for case in cases)
        cases = sorted(cases, key=lambda case: case[3])
        column = (width - 48) / len(cases)
        for number, case in enumerate(cases):
            place = x + 44 + column * (number + 0.5)
            thick = min(max(column * 0.5, 1.0), 8.0)
            self._line(place, self._height(y, case[0], low, high), self._height(y, case[-1], low, high), 1.0)
            self._line(place, self._height(y, case[2], low, high), self._height(y, case[4], low, high), thick)
        self._text(x, int(self._height(y, high, low, high)) - 5, 40, f"{high:.4g}", qt.Qt.AlignRight)
        self._text(x, int(self._height(y, low, low, high)) - 8, 40, f"{low:.4g}", qt.Qt.AlignRight)

    def _frame(self, x: int, y: int, width: int, title: str) -> None:
        self._text(x, y, width, title, qt.Qt.AlignLeft)
        color = qt.QColor(self._ink)
        color.setAlpha(60)
        self._painter.setPen(_pen(color, 1.0))
        bottom = y + HEIGHT - TEXT - 2
        self._painter.drawLine(x, bottom, x + width, bottom)

    def _height(self, y: int, value: float, low: float, high: float) -> float:
        room = HEIGHT - 2 * TEXT - 12
        return y + TEXT + 6 + room * (1 - (value - low) / ((high - low) or 1))

    def _dot(self, x: float, y: float) -> None:
        color = qt.QColor(self._accent)
        color.setAlpha(170)
        self._painter.setPen(qt.QPen(qt.Qt.NoPen))
        self._painter.setBrush(qt.QBrush(color))
        self._painter.drawEllipse(qt.QRectF(x - _DOT / 2, y - _DOT / 2, _DOT, _DOT))

    def _median_line(self, x: float, width: float, y: float) -> None:
        self._painter.setPen(_pen(self._ink, 1.5))
        self._painter.drawLine(qt.QPointF(x, y), qt.QPointF(x + width, y))

    def _line(self, x: float, y1: float, y2: float, width: float) -> None:
        self._painter.setPen(_pen(self._accent, width))
        self._painter.drawLine(qt.QPointF(x, y1), qt.QPointF(x, y2))

    def _text(self, x: float, y: float, width: float, text: str, alignment) -> None:
        self._painter.setPen(_pen(self._ink, 1.0))
        self._painter.drawText(qt.QRectF(x, y, width, TEXT), int(alignment), text)


def _pen(color, width: float):
    pen = qt.QPen(color)
    pen.setWidthF(width)
    pen.setCapStyle(qt.Qt.FlatCap)
    return pen
