"""Text of strangers (names in data sets, models and jobs) as people may see it: nothing that terminals or pages obey."""

from __future__ import annotations

import unicodedata

_NEEDED = "\n\t\u061c\u200c\u200d\u200e\u200f"
"""Line ends, tabs, and the marks by which Arabic, Hebrew, Indian scripts and emoji are written; they change nothing else."""
_OBEYED = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode's control characters, invisible ones (such as those that turn the direction of writing), half characters, and
ends of lines and paragraphs."""
_TURNING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""What turns the direction of writing, so that a name reads as another one."""
_COMMANDS = {"Cc": "control character", "Cs": "half character", "Zl": "line end", "Zp": "line end"}


def printable(text: str) -> str:
    """The text with characters that are obeyed instead of shown written out, as '\\x1b'."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_written(character) if is_obeyed(character) else character for character in text)


def is_obeyed(character: str) -> bool:
    """Whether a character is a command or half of one, rather than something to read."""
    return character not in _NEEDED and unicodedata.category(character) in _OBEYED


def command_in(text: str) -> str:
    """What no name may hold, 'the control character U+001B', or nothing; other invisible characters are how people write."""
    for character in text:
        kind = "direction mark" if character in _TURNING else _COMMANDS.get(unicodedata.category(character))
        if kind and character != "\t":
            return f"the {kind} U+{ord(character):04X}"
    return ""


def _written(character: str) -> str:
    return character.encode("ascii", "backslashreplace").decode() if character > "\x7f" else f"\\x{ord(character):02x}"
