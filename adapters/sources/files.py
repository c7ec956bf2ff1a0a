"""Files, told apart by their content: FHIR as NDJSON, as a Bundle or as one resource, HL7 v2 messages, or a DICOM
object, each plain or gzip.

What becomes a part, byte for byte:

- NDJSON (`application/fhir+ndjson`): each line that is not blank, without its line end;
- a Bundle (`application/vnd.cds.bundle-entry+json`): each member of `entry`, and last the envelope: the Bundle with its
  entries taken out, so that type, total, links and signature are kept. A history comes newest first (R4 http.html,
  history) and is turned round, so that parts always stand in the order of what happened;
- one resource (`application/fhir+json`): the resource;
- HL7 v2 (`x-application/hl7-v2+er7`): each message, of a plain file, a batch (FHS, BHS) or a feed that was captured in
  its MLLP frames. The envelope of a batch is no part; what is odd about it stands in the manifest (`notes`);
- a DICOM object (`application/dicom`): the Part 10 file. A bare data set is refused: to wrap it would be to change it,
  and its transfer syntax would be a guess.

Memory stays flat: no more than one part (and for a history all of its entries, see MAX_PART) is held at a time.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

from adapters.dicom.part10 import MEDIA_TYPE as DICOM
from adapters.hl7v2.batch import Entry, Item, split
from adapters.readers.fhir import ENTRY, LINE, RESOURCE
from adapters.readers.hl7v2 import MESSAGE
from adapters.source import Intake, Receipt, Staged
from adapters.sources.json_stream import JsonStream
from models.errors import Malformed, TooLarge
from models.nouns import JSON, LandingMeta

NAME = "files"
CHUNK = 1 << 20
MAX_OBJECT = 4 << 30
"""Bytes of one DICOM object: its element lengths have 32 bits."""
MAX_PART = 64 << 20
"""Bytes of one line, entry, resource or message (and of all entries of one history). More is refused."""
MOST_NOTES = 100

Progress = Callable[[int, int], None]
"""Bytes of the file read so far (compressed, if it is), and bytes of the file."""


@dataclass(frozen=True, slots=True)
class FileSource:
    """Lands the files one after the other, each as one delivery."""

    paths: tuple[Path, ...]
    source: str
    namespace: str
    now: Callable[[], str]
    progress: Progress | None = field(default=None)

    async def run(self, intake: Intake) -> None:
        for path in self.paths:
            await land_file(
                path,
                intake,
                source=self.source,
                namespace=self.namespace,
                received_at=self.now(),
                progress=self.progress,
            )


async def land_file(
    path: Path,
    intake: Intake,
    *,
    source: str,
    namespace: str,
    received_at: str,
    progress: Progress | None = None,
    manifest: Mapping[str, Any] | None = None,
) -> Receipt:
    """Land one file as one delivery; when this returns it is durable. The same bytes again are a duplicate.

    The manifest of the landing holds the file's name, its form (`ndjson`, `bundle`, `resource`, `hl7v2`, `dicom`) and
    whether it was compressed, besides what the caller adds, and `notes` where there was something odd.

    Raises: Malformed (nothing that we know, truncated, half a gzip), TooLarge (a part over 64 MiB, an object over 4
    GiB), OSError (cannot be read). Then nothing of it was landed.
    """
    with _File(path, progress) as file:
        form = await _form(file)
        known = {"file": path.name, "form": form.name, "compressed": file.compressed, **(manifest or {})}
        staged = intake.stage(LandingMeta(source, namespace, form.media_type, received_at, known))
        try:
            learnt = await form.write(file, staged)
            return await (staged.commit(learnt=learnt) if learnt else staged.commit())
        except BaseException:
            await staged.abandon()
            raise


# ---- the file --------------------------------------------------------------------------------------------------------


class _File:
    """The bytes of a file, unpacked, in chunks read off the event loop; can be started over."""

    def __init__(self, path: Path, progress: Progress | None) -> None:
        self.name = path.name
        self._progress = progress
        self._raw = path.open("rb")
        self._size = path.stat().st_size
        self.compressed = self._raw.read(2) == b"\x1f\x8b"
        self._stream = self._opened()

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self._raw.close()

    def _opened(self) -> BinaryIO:
        self._raw.seek(0)
        return cast(BinaryIO, gzip.GzipFile(fileobj=self._raw)) if self.compressed else self._raw

    async def start_over(self) -> None:
        self._stream = self._opened()

    async def chunk(self) -> bytes:
        """The next bytes; none at the end."""
        return await asyncio.to_thread(self.read)

    def read(self) -> bytes:
        """The same, on the thread that calls."""
        try:
            chunk = self._stream.read(CHUNK)
        except (EOFError, gzip.BadGzipFile, zlib.error):
            raise Malformed("the gzip file is damaged or cut off", where=self.name) from None
        if self._progress is not None:
            self._progress(self._raw.tell(), self._size)
        return chunk

    async def lines(self) -> AsyncIterator[tuple[int, bytes]]:
        """Lines that are not blank, without their ends, counted from 1."""
        number, kept = 0, b""
        while chunk := await self.chunk():
            first, *more = chunk.split(b"\n")
            kept += first
            if len(kept) > MAX_PART:
                raise TooLarge(f"a line is longer than {MAX_PART} bytes", where=f"{self.name}, line {number + 1}")
            for following in more:
                number += 1
                if line := _line(kept):
                    yield number, line
                kept = following
        if line := _line(kept):
            yield number + 1, line


def _line(raw: bytes) -> bytes:
    line = raw[:-1] if raw.endswith(b"\r") else raw
    return line if line.strip() else b""


# ---- the forms -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Form:
    name: str
    media_type: str
    write: Callable[[_File, Staged], Awaitable[JSON | None]]
    """Writes the parts; gives what only the end of the file could tell."""


async def _form(file: _File) -> _Form:
    """What the file is, by what stands in it; the file is at its beginning again afterwards.

    NDJSON: the first line is a whole resource and more lines follow. Otherwise a JSON object, read up to `entry` or to
    its end: a Bundle, or one resource, or NDJSON after all (a first line longer than a chunk, or one that is damaged:
    one bad line does not keep the others out).
    """
    head = await file.chunk()
    if head[128:132] == b"DICM":
        await file.start_over()
        return OBJECT
    if head[:2] in (b"\x02\0", b"\x08\0", b"\0\x08") and b"\0" in head[2:16]:
        raise Malformed(
            "a DICOM data set without preamble and meta information, not a file (PS3.10 7)", where=file.name
        )
    start = head.lstrip(b" \t\r\n\0")[:6]
    if start.removeprefix(b"\xef\xbb\xbf").startswith((b"MSH", b"FHS", b"BHS", b"\x0b")):
        await file.start_over()
        return MESSAGES
    start = head.lstrip(b" \t\r\n")[:3]
    if start[:3] == b"\xef\xbb\xbf":
        raise Malformed("the file begins with a byte order mark, which JSON does not allow", where=file.name)
    if start[:1] != b"{":
        what = "neither NDJSON, a Bundle, a FHIR resource, HL7 v2 messages nor DICOM (nor one of these in gzip)"
        raise Malformed(what, where=file.name)
    await file.start_over()
    lines = [line for line in head.split(b"\n", 8)[:8] if line.strip()]
    if len(lines) > 1 and _is_resource(lines[0]):
        return NDJSON
    stream = JsonStream(file.chunk, file.name, MAX_PART)
    try:
        form = BUNDLE if await stream.is_bundle() else NDJSON if await stream.followed() else SINGLE
    except Malformed:
        if not any(_is_resource(line) for line in lines[1:3]):
            raise
        form = NDJSON
    await file.start_over()
    return form


def _is_resource(line: bytes) -> bool:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and "resourceType" in value


async def _write_lines(file: _File, staged: Staged) -> None:
    async for _, line in file.lines():
        await staged.write(line)
        await staged.end_part()


async def _write_bundle(file: _File, staged: Staged) -> None:
    stream = JsonStream(file.chunk, file.name, MAX_PART)
    newest_first: list[bytes] = []
    held = written = 0
    async for entry in stream.entries():
        if stream.bundle_type == "history":
            held += len(entry)
            if held > MAX_PART:
                raise TooLarge(f"the entries of a history are longer than {MAX_PART} bytes", where=file.name)
            newest_first.append(entry)
        else:
            written += 1
            await staged.write(entry)
            await staged.end_part()
    if written and stream.bundle_type == "history":
        raise Malformed("a history that says so only after its entries cannot be put in order", where=file.name)
    for entry in reversed(newest_first):
        await staged.write(entry)
        await staged.end_part()
    await staged.write(stream.envelope)
    await staged.end_part()


async def _write_resource(file: _File, staged: Staged) -> None:
    await staged.write(await JsonStream(file.chunk, file.name, MAX_PART).whole())
    await staged.end_part()


async def _write_object(file: _File, staged: Staged) -> None:
    written = 0
    while chunk := await file.chunk():
        written += len(chunk)
        if written > MAX_OBJECT:
            raise TooLarge(f"an object is longer than {MAX_OBJECT} bytes", where=file.name)
        await staged.write(chunk)
    await staged.end_part()


_OVER_THE_LIMIT = "a message over the limit"
"""How `split` begins to say so. A file with such a message is refused whole, as any file with such a part."""


async def _write_messages(file: _File, staged: Staged) -> JSON | None:
    """A chunk's worth of messages at a time: splitting is done off the event loop."""
    items = split(iter(file.read, b""), max_message=MAX_PART)
    notes: list[str] = []
    written = 0
    while taken := await asyncio.to_thread(_some, items):
        for item in taken:
            if isinstance(item, Entry):
                written += 1
                await staged.write(item.raw)
                await staged.end_part()
            elif item.what.startswith(_OVER_THE_LIMIT):
                raise TooLarge(f"a message is longer than {MAX_PART} bytes", where=f"{file.name}, {item.where}")
            elif len(notes) < MOST_NOTES:
                notes.append(f"{item.what} ({item.where})")
    if not written:
        raise Malformed("no message at all", where=file.name)
    return {"notes": notes} if notes else None


def _some(items: Iterator[Item]) -> list[Item]:
    """The next ones, up to about a chunk of bytes."""
    taken: list[Item] = []
    size = 0
    for item in items:
        taken.append(item)
        size += len(item.raw) if isinstance(item, Entry) else 256
        if size >= CHUNK:
            break
    return taken


NDJSON = _Form("ndjson", LINE, _write_lines)
BUNDLE = _Form("bundle", ENTRY, _write_bundle)
SINGLE = _Form("resource", RESOURCE, _write_resource)
MESSAGES = _Form("hl7v2", MESSAGE, _write_messages)
OBJECT = _Form("dicom", DICOM, _write_object)
