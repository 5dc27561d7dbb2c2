"""Slicer's light and dark styles, as far as a panel's legibility depends on them."""

from __future__ import annotations

from PySide6 import QtGui

LIGHT = {"Window": "#f0f0f0", "WindowText": "#141414", "Base": "#ffffff", "AlternateBase": "#f5f5f5", "Text": "#141414",
         "Button": "#e6e6e6", "ButtonText": "#141414", "ToolTipBase": "#ffffdc", "ToolTipText": "#141414",
         "Highlight": "#3074c4", "HighlightedText": "#ffffff", "Link": "#2a5fa8", "PlaceholderText": "#808080",
         "disabled": "#8c8c8c"}  # fmt: skip
DARK = {"Window": "#353535", "WindowText": "#e6e6e6", "Base": "#232323", "AlternateBase": "#2d2d2d", "Text": "#e6e6e6",
        "Button": "#454545", "ButtonText": "#e6e6e6", "ToolTipBase": "#454545", "ToolTipText": "#e6e6e6",
        "Highlight": "#2a82da", "HighlightedText": "#ffffff", "Link": "#6ab0f3", "PlaceholderText": "#8c8c8c",
        "disabled": "#7d7d7d"}  # fmt: skip
GREYED = ("WindowText", "Text", "ButtonText")


def palette(dark: bool) -> QtGui.QPalette:
    colors = DARK if dark else LIGHT
    made = QtGui.QPalette()
    for role, color in colors.items():
        if role != "disabled":
            made.setColor(getattr(QtGui.QPalette, role), QtGui.QColor(color))
    for role in GREYED:
        made.setColor(QtGui.QPalette.Disabled, getattr(QtGui.QPalette, role), QtGui.QColor(colors["disabled"]))
    return made
