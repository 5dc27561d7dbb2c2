"""Names that come out of files of others: what may become the name of a file of ours, and what would lead elsewhere."""

from __future__ import annotations

import re
import unicodedata

from .escapes import command_in

DEVICES = re.compile(r"^(con|prn|aux|nul|com\d|lpt\d)(?=\.|$)", re.IGNORECASE)
"""Names that mean a device on Windows, whatever the ending."""
_SIGNS = re.compile(r"[/\\:\t]")
"""Those of paths, and the tab that names of labels may have."""
_LONGEST = 255
"""Bytes of a name that disks take."""


def is_plain(name: str) -> bool:
    """Whether a name stays in the folder that it is used in, on every system, and is shown as it is."""
    return name.strip(".") != "" and not _SIGNS.search(name) and not command_in(name)


def is_portable(name: str) -> bool:
    """Whether a name can be a file's on every disk: Windows knows devices, and drops dots and spaces at the end."""
    fits = is_plain(name) and len(name.encode("utf-8", "replace")) <= _LONGEST
    return fits and not DEVICES.match(name) and name[-1] not in ". "


def composed(name: str) -> str:
    """The name with each letter as one, where files that come from macOS have 'u' and two dots for 'ü'."""
    return unicodedata.normalize("NFC", name)
