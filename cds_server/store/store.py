"""One instance's store: database, key store, blobs, the writer. Opened once a process."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from cds_server.store.engine import Database, translated_os
from cds_server.store.key_store import KeyStore, Master
from cds_server.store.migrate import migrate
from cds_server.store.pack import FIRST, LAST, MANIFEST, PART, PackWriter, part_ref, read_left, read_parts
from cds_server.store.part_stream import PartStream
from cds_server.store.reads import LandingRow, Reads
from cds_server.store.segments import Place, Segments
from cds_server.store.vault import Vault
from cds_server.store.writer import Writer
from models.errors import ReadOnlyStore, RecordUnavailable
from models.nouns import instant


@dataclass(frozen=True, slots=True)
class Store:
    data_dir: Path
    database: Database
    vault: Vault
    writer: Writer
    reads: Reads
    instance: str
    segments: Segments
    staging: Path
    """Where what comes is written before it has its place."""

    @classmethod
    def open(cls, data_dir: Path, url: str, master: Master | None = None) -> Store:
        """Open, and on the very first time create, the instance in `data_dir`. `master`: the key above its keys.

        Raises: Misconfigured (schema newer than the program), KeysUnavailable (key store lost or of another instance),
        RecordUnavailable and its kinds.
        """
        try:
            for folder in (data_dir, data_dir / "blobs", data_dir / "staging"):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise translated_os(error) from None
        if not os.access(data_dir, os.W_OK):  # else SQLite says only that it cannot open the file
            raise ReadOnlyStore("the record cannot be written: the data directory is read-only", where="data directory")
        database = Database(url, data_dir)
        try:
            migrate(database)
            key_file = data_dir / "keys.db"
            instance = _instance(database) or _new_instance(database, key_file)
            vault = Vault(KeyStore(key_file, instance, master))
        except BaseException:
            database.close()
            raise
        staging = data_dir / "staging"
        segments, reads = Segments(data_dir / "blobs", staging), Reads(database, vault)
        return cls(data_dir, database, vault, Writer(database, vault), reads, instance, segments, staging)

    def close(self) -> None:
        self.writer.close()
        self.segments.close()
        self.vault.close()
        self.database.close()

    def check_writable(self) -> None:
        """Take and give back the write lock, and touch the data directory. Raises RecordUnavailable and its kinds."""
        try:
            probe = self.data_dir / "staging" / ".probe"
            try:
                probe.write_bytes(bytes(4096))  # a full disk still takes an empty file
            finally:
                probe.unlink(missing_ok=True)
        except OSError as error:
            raise translated_os(error) from None
        self.database.try_writing()

    # -- the bytes of landings -----------------------------------------------------------------------------------------

    def pack_writer(self, *, manifest: bool = False, appended: bool = False) -> PackWriter:
        """Of a new landing, which it names. `manifest`: it will have one. `appended`: to a segment, if one is ready."""
        name = self.vault.ready.name(PART, *((FIRST, LAST) if manifest else (FIRST,)))
        segments = self.segments if appended else None
        return PackWriter(self.vault, name.ref, self.staging, name.keys, segments)

    def open_pack(self, landing: LandingRow) -> BinaryIO:
        """The sealed bytes. Raises RecordUnavailable when the blob file is missing."""
        if landing.pack is not None:
            return io.BytesIO(landing.pack)
        try:
            return Place.of(str(landing.pack_file)).open(self.data_dir / "blobs")
        except FileNotFoundError:
            raise RecordUnavailable("the blob of a landing is missing", where=f"landing {landing.ref}") from None

    def parts(self, landing: LandingRow, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, bytes]]:
        """(ordinal, bytes) of a landing's parts, in order. Raises RecordUnavailable when the last ones are missing."""
        expected = landing.parts if stop is None else min(stop, landing.parts)
        read = start
        with self.open_pack(landing) as pack:
            for ordinal, body in read_parts(self.vault, landing.ref, pack, start=start, stop=stop):
                yield ordinal, body
                read = ordinal + 1
        if read < expected:
            raise RecordUnavailable("the sealed bytes of a landing are cut off", where=f"landing {landing.ref}")

    def left(self, landing: LandingRow, start: int = 0) -> Iterator[tuple[int, bytes | None]]:
        """The same of what is left of a landing: None for a part whose key was destroyed."""
        read = start
        with self.open_pack(landing) as pack:
            for ordinal, body in read_left(self.vault, landing.ref, pack, start=start):
                yield ordinal, body
                read = ordinal + 1
        if read < landing.parts:
            raise RecordUnavailable("the sealed bytes of a landing are cut off", where=f"landing {landing.ref}")

    def part(self, landing: LandingRow, ordinal: int) -> bytes:
        for _, body in self.parts(landing, ordinal, ordinal + 1):
            return body
        raise RecordUnavailable("a landing has no such part", where=f"landing {landing.ref} part {ordinal}")

    def stream(self, landing: LandingRow, ordinal: int) -> PartStream:
        """A part as a file, for what is too large to hold."""
        return PartStream(self.vault, landing.ref, self.open_pack(landing), ordinal)

    def opened(self, landing: LandingRow) -> tuple[bytes, ...] | None:
        """The parts of a hook call's landing; None where they cannot be opened any more."""
        try:
            return tuple(body for _, body in self.parts(landing))
        except RecordUnavailable:
            return None

    def manifest(self, landing: LandingRow) -> bytes:
        return self.vault.open(part_ref(landing.ref, MANIFEST), landing.manifest) if landing.manifest else b"{}"


def _instance(database: Database) -> str | None:
    with database.reading() as connection:
        row = connection.exec_driver_sql("SELECT id FROM instance").fetchone()
    return str(row[0]) if row else None


def _new_instance(database: Database, key_file: Path) -> str:
    """Name a new instance: its key store first, then the row; a crash between the two leaves nothing half made."""
    with database.writing() as connection:
        row = connection.exec_driver_sql("SELECT id FROM instance").fetchone()
        if row:  # another process was first
            return str(row[0])
        instance = KeyStore.create(key_file)
        connection.exec_driver_sql(
            database.sql("INSERT INTO instance (id, created_at) VALUES (?, ?)"), (instance, instant(datetime.now(UTC)))
        )
        return instance
