"""Curves, overlays, diagrams and the report: the room of pictures, drawn by matplotlib."""

from ..packages import require_package

require_package("matplotlib")
