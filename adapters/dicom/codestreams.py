"""How large an image is by its own code stream, before a codec allocates what it says: JPEG, JPEG-LS, JPEG 2000."""

from __future__ import annotations

_J2K, _SIZ = b"\xff\x4f", b"\xff\x51"
_JP2 = b"\x00\x00\x00\x0cjP  "
_STANDALONE = frozenset((0x01, *range(0xD0, 0xD9)))
_FRAMES = frozenset((0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7))
"""SOF0 to SOF15 (T.81 B.1.1.3) without DHT, JPG and DAC; SOF55 of JPEG-LS (T.87)."""
_MAX_SEGMENTS = 4096


def size_of(stream: bytes) -> tuple[int, int, int] | None:
    """Rows, columns and components; None where it is no such stream, or does not say so before its data."""
    if stream.startswith(_JP2):
        at = stream.find(_J2K + _SIZ, 0, 4096)
        return _of_jpeg_2000(stream, at) if at >= 0 else None
    if stream.startswith(_J2K):
        return _of_jpeg_2000(stream, 0)
    return _of_jpeg(stream) if stream.startswith(b"\xff\xd8") else None


def _of_jpeg_2000(stream: bytes, at: int) -> tuple[int, int, int] | None:
    """The SIZ segment stands first (T.800 A.5.1)."""
    if stream[at + 2 : at + 4] != _SIZ or len(stream) < at + 42:
        return None

    def number(offset: int) -> int:
        return int.from_bytes(stream[at + offset : at + offset + 4], "big")

    columns, rows = number(8) - number(16), number(12) - number(20)
    return rows, columns, int.from_bytes(stream[at + 40 : at + 42], "big")


def _of_jpeg(stream: bytes) -> tuple[int, int, int] | None:
    at = 2
    for _ in range(_MAX_SEGMENTS):
        while at < len(stream) and stream[at] == 0xFF and at + 1 < len(stream) and stream[at + 1] == 0xFF:
            at += 1  # fill bytes (T.81 B.1.1.2)
        if at + 4 > len(stream) or stream[at] != 0xFF:
            return None
        marker = stream[at + 1]
        if marker in _STANDALONE:
            at += 2
            continue
        if marker in _FRAMES:
            if at + 10 > len(stream):
                return None
            rows, columns = (int.from_bytes(stream[at + begin : at + begin + 2], "big") for begin in (5, 7))
            return rows, columns, stream[at + 9]
        if marker == 0xDA:
            return None
        at += 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    return None
