"""Text of files and of standard input: the encoding that its first bytes tell, and its lines, however they end."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from tl_jacobian.errors import CorpusError, JacobianScopeError

# Byte-order marks, longer ones first: that of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NUL = "holds a NUL character: if it is UTF-16, save it as UTF-8, or with a byte-order mark"


class Unreadable(NamedTuple):
    """In place of a row that can't be read."""

    why: str


def text_of(data: bytes, what: str, error: type[JacobianScopeError] = CorpusError) -> str:
    r"""Bytes as text: UTF-8, or what a byte-order mark says; every line ends in ``\n``.

    Raises:
        JacobianScopeError: they aren't text; which byte it is.

    >>> text_of(codecs.BOM_UTF16_LE + "Rome\r\n".encode("utf-16-le"), "a file")
    'Rome\n'
    """
    encoding = _encoding(data[:4])
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as found:
        raise error(f"{what} isn't {_named(encoding)}: {found}") from found
    if "\0" in text:
        raise error(f"{what} {_NUL}")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def lines_of(path: Path) -> Iterator[tuple[int, str | Unreadable]]:
    """Numbered lines with something in them, without their ends; one that isn't text says so.

    Raises:
        CorpusError: a file of two or four bytes a character is damaged, so that no further line can be told.
    """
    with path.open("rb") as file:
        encoding = _encoding(file.read(4))
        file.seek(0)
        found = _utf8_lines(file) if encoding.startswith("utf-8") else _wide_lines(path, file, encoding)
        for number, line in enumerate(found, 1):
            if isinstance(line, str) and "\0" in line:
                yield number, Unreadable(f"line {number} {_NUL}")
            elif isinstance(line, str) and line.lstrip("\ufeff").strip():  # files joined to one have marks inside
                yield number, line
            elif isinstance(line, UnicodeDecodeError):
                yield number, Unreadable(f"line {number} isn't UTF-8: {line}")


def _encoding(start: bytes) -> str:
    return next((encoding for mark, encoding in _MARKS if start.startswith(mark)), "utf-8")


def _named(encoding: str) -> str:
    return encoding.removesuffix("-sig").upper()


def _utf8_lines(file: BinaryIO) -> Iterator[str | UnicodeDecodeError]:
    for chunk in file:
        for line in chunk.removesuffix(b"\n").removesuffix(b"\r").split(b"\r"):
            try:
                yield line.removeprefix(codecs.BOM_UTF8).decode("utf-8")  # files that were joined have one in each part
            except UnicodeDecodeError as error:
                yield error


def _wide_lines(path: Path, file: BinaryIO, encoding: str) -> Iterator[str]:
    try:
        for line in io.TextIOWrapper(file, encoding):
            yield line.removesuffix("\n")
    except UnicodeDecodeError as error:
        raise CorpusError(f"{str(path)!r} isn't {_named(encoding)}, as its byte-order mark says: {error}") from error
