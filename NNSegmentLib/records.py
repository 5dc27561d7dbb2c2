"""Frozen dataclasses to JSON and back, and files that are either whole or absent."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import json
import os
import secrets
import shutil
import sys
import tempfile
import time
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from .errors import InputError, NNSegmentError, StorageError, TaskError

T = TypeVar("T")
_UNFINISHED = ".writing-"
"""How the names of files begin that are not whole yet."""
_ENDING = 12
"""Letters at the end of a name that hold any file ending; a whole name and more may be too long for the disk."""
_BUSY_S = 2.0
"""How long another program may have a file open on Windows."""
_LOOK_S = 0.05
_LONGEST_PATH = 247
"""Letters in the path of a folder on Windows; files have twelve more, which the temporary names use up."""
_FILE_SYSTEM = r"SYSTEM\CurrentControlSet\Control\FileSystem"
_NO_LINKS = getattr(os, "O_NOFOLLOW", 0)
TOO_LONG = "its path is too long for Windows; choose a folder nearer to the drive's root, such as C:\\NNSegment"


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; renamed to `path` on success, removed on failure.

    The temporary name keeps the file's ending, because image writers choose the format by it.
    Raises StorageError when the folder cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        ending = ascii_name(path.name[-_ENDING:])  # the only letters that ITK can write to on Windows
        handle, name = tempfile.mkstemp(prefix=_UNFINISHED, suffix="-" + ending, dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise StorageError(cannot_write(path, error)) from error
    temporary = Path(name)
    try:
        yield temporary
        with contextlib.suppress(OSError):  # shares and memory sticks that belong to somebody else have no permissions
            os.chmod(temporary, 0o666 & ~umask())
        move(temporary, path)
    except OSError as error:
        raise StorageError(cannot_write(path, error)) from error
    finally:
        with contextlib.suppress(PermissionError):  # what went wrong before is what to tell
            remove(temporary)


def ascii_name(name: str) -> str:
    """The name with '_' for every letter that is not ASCII."""
    return "".join(letter if letter.isascii() else "_" for letter in name)


def remove_unfinished(folder: Path) -> None:
    """Delete what a killed process was writing into a folder that no other process writes to; raises OSError."""
    for path in Path(folder).glob(f"{_UNFINISHED}*"):
        remove(path)


@contextlib.contextmanager
def working_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A new folder in `parent` to work in, removed at the end as far as other programs let it go; raises OSError."""
    folder = new_folder(parent, prefix)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def new_folder(parent: Path, prefix: str) -> Path:
    """An empty folder with a random name, for everyone who may use `parent`; raises OSError.

    A folder of `tempfile.mkdtemp` is closed to others, and on Windows stays so under its later name (gh-118486).
    """
    while True:
        folder = Path(parent) / (prefix + secrets.token_hex(4))
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            return folder


def remove(path: Path) -> None:
    """Delete a file that may be absent; raises OSError."""
    patiently(lambda: path.unlink(missing_ok=True))


def move(source: Path, target: Path) -> None:
    """Rename a file over another, or a folder; raises OSError."""
    patiently(lambda: os.replace(source, target))


def patiently(work: Callable[[], T]) -> T:
    """Do what Windows refuses while a viewer or virus scanner has the file open; there it is tried for two seconds.

    Raises PermissionError when the file cannot be had, elsewhere at once.
    """
    ends = time.monotonic() + _BUSY_S
    while True:
        try:
            return work()
        except PermissionError:
            if sys.platform != "win32" or time.monotonic() >= ends:
                raise
        time.sleep(_LOOK_S)


def open_at_end(path: Path, permissions: int = 0o666) -> BinaryIO:
    """Open a file to read it and to write at its end, but no link, which may lead anywhere; raises OSError."""
    return open(path, "ab+", opener=lambda name, flags: os.open(name, flags | _NO_LINKS, permissions))


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all; raises StorageError."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def copy_whole(source: Path, target: Path) -> None:
    """Copy a file whole or not at all, making the folder for it; raises StorageError."""
    with written_whole(target) as temporary:
        shutil.copyfile(source, temporary)


def copy_if_there(source: Path, target: Path) -> None:
    """Copy a file that may be absent, whole or not at all; raises StorageError."""
    if source.is_file():
        copy_whole(source, target)


def write_json(path: Path, value: Any, sort_keys: bool = False) -> None:
    """Write JSON with four spaces of indentation, as nnU-Net does, whole or not at all; raises StorageError."""
    write_text(path, json.dumps(value, indent=4, sort_keys=sort_keys, default=_plain))


def read_json(path: Path, error: type[InputError] = TaskError) -> Any:
    """Parsed JSON; raises `error` with one sentence when the file is missing or damaged."""
    path = Path(path)
    try:
        return parse_json(path.read_text(encoding="utf-8"), path, error)
    except FileNotFoundError as missing:
        advice = TOO_LONG if is_too_long(path) else "correct the path or put the file there"
        raise error(f"Expected the file {path}, found nothing there; {advice}.") from missing
    except (OSError, UnicodeDecodeError) as unreadable:
        raise error(
            f"{path} cannot be read ({cause_of(unreadable)}); check its permissions or replace it by a copy."
        ) from unreadable


def cause_of(unreadable: OSError | UnicodeDecodeError) -> str:
    """Why a text file cannot be read, for a sentence."""
    if isinstance(unreadable, UnicodeDecodeError):
        return "its text is not in UTF-8"
    return unreadable.strerror or str(unreadable)


def parse_json(text: str, where: Path | str, error: type[NNSegmentError] = TaskError) -> Any:
    """Parsed JSON that `where` holds; raises `error` with one sentence when it is damaged."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as damaged:
        raise error(
            f"{where} is not valid JSON (line {damaged.lineno}: {damaged.msg}); mend it or replace it by a copy."
        ) from damaged
    except (RecursionError, ValueError) as absurd:  # brackets in brackets without end, numbers of thousands of digits
        raise error(
            f"{where} is nested too deeply or holds a number too long to be read; replace it by a copy."
        ) from absurd


def kind_of(value: Any) -> str:
    """What a value is in JSON, for a sentence: 'a list', 'nothing'."""
    kinds = ((bool, "true or false"), ((int, float), "a number"), (str, "a text"), (list, "a list"))
    return (
        "nothing" if value is None else next((kind for types, kind in kinds if isinstance(value, types)), "an object")
    )


def lack_of(wrong: Exception) -> str:
    """Why the content of a file cannot be used, for a sentence, from what Python raised when it was looked through."""
    if isinstance(wrong, KeyError):
        return f"it has no {wrong.args[0]}"
    return f"{wrong!s:.100}" if isinstance(wrong, ValueError) else "an entry is of another kind"


def to_json(record: Any) -> Any:
    """A record as plain dictionaries, lists, numbers and strings."""
    return json.loads(json.dumps(record, default=_plain))


def from_json(cls: type[T], values: Mapping[str, Any], error: type[InputError] = TaskError) -> T:
    """A record of class `cls` from parsed JSON; unknown keys raise `error` naming those that exist."""
    if not isinstance(values, Mapping):
        raise error(f"{cls.__name__} should be a JSON object like {{…}}, found {values!r:.60}; correct the file.")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise error(f"{cls.__name__} has no field {', '.join(unknown)}; it has {', '.join(fields)}.")
    hints = _hints(cls)
    try:
        return cls(**{name: _field(name, hints[name], value) for name, value in values.items()})
    except (TypeError, ValueError) as wrong:
        raise error(f"{cls.__name__} cannot be read: {wrong}; correct the file.") from wrong


def take_declared_kinds(record: Any) -> None:
    """Turn the fields of a record that is being made into their declared kinds: lists into tuples, NumPy's numbers too.

    Raises TypeError naming the first field that holds something else.
    """
    for name, hint in _hints(type(record)).items():
        value = getattr(record, name)
        if value is None and type(None) not in typing.get_args(hint):
            raise TypeError(f"{name} should be {_SCALARS.get(hint, 'given')}, found None")
        object.__setattr__(record, name, _field(name, hint, value))  # the record is frozen for everyone else


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    """Resolving annotations takes a millisecond; a store of prepared cases reads hundreds of records."""
    return typing.get_type_hints(cls)


def _field(name: str, hint: Any, value: Any) -> Any:
    try:
        return _typed(hint, value)
    except TypeError as wrong:
        raise TypeError(f"{name} {wrong}") from wrong


def _typed(hint: Any, value: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hasattr(value, "tolist"):
        value = value.tolist()  # NumPy's numbers and arrays
    if value is None or hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        kinds = [a for a in arguments if a is not type(None)]
        return _typed(kinds[0], value) if len(kinds) == 1 else value
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return from_json(hint, value)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise TypeError(f"should be a list, found {value!r:.60}")
        kinds = arguments[:1] * len(value) if arguments[-1:] == (Ellipsis,) else arguments
        return tuple(_typed(kind, item) for kind, item in zip(kinds, value, strict=True))
    if hint is Path:
        return Path(value)
    return _scalar(hint, value) if hint in _SCALARS else value


_SCALARS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def _scalar(kind: type, value: Any) -> Any:
    fits = isinstance(value, (int, float) if kind is float else kind)
    if not fits or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"should be {_SCALARS[kind]}, found {value!r:.60}")
    try:
        return float(value) if kind is float else value
    except OverflowError as beyond:
        raise TypeError(f"is too large a number, found {str(value)[:20]}…") from beyond


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return value.tolist()  # numpy scalars and arrays
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def require_writable(folder: Path) -> None:
    """Raises StorageError when nothing can be written into `folder`, which need not exist; makes nothing."""
    folder = Path(folder).absolute()
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    if not existing.is_dir():
        raise StorageError(cannot_write(folder, NotADirectoryError()))
    if not os.access(existing, os.W_OK):
        raise StorageError(cannot_write(folder, PermissionError("no permission")))


def cannot_write(path: Path, error: OSError) -> str:
    """The sentence about a file or folder that could not be written."""
    tried = error.filename if isinstance(error.filename, str) else path  # a temporary name may be the longer one
    if error.errno in (None, errno.ENOENT, errno.ENAMETOOLONG) and is_too_long(tried):
        return f"Cannot write {path}: {TOO_LONG}."
    reason = error.strerror or str(error)
    if isinstance(error, (FileExistsError, NotADirectoryError)):
        reason = "a file is where its folder should be"
    return f"Cannot write {path} ({reason}); choose a folder with free space that you may write to."


def is_too_long(path: Path | str) -> bool:
    """Whether Windows finds no such file for the length of its path."""
    return len(str(Path(path).absolute())) > _LONGEST_PATH and not allows_long_paths()


def allows_long_paths() -> bool:
    """Whether paths may be longer than 259 letters: everywhere but on Windows, and there where somebody has set it so."""
    if sys.platform != "win32":
        return True
    import winreg

    try:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, _FILE_SYSTEM) as key:
            return winreg.QueryValueEx(key, "LongPathsEnabled")[0] == 1
    except OSError:  # Windows before 2016 has no such value
        return False


@functools.cache
def umask() -> int:
    """The permissions the user withholds from new files.

    Asking means changing them for a moment, in which other threads would make files for everyone; so it is asked once.
    """
    mask = os.umask(0)
    os.umask(mask)
    return mask
