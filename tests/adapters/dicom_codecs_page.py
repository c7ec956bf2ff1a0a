"""Which transfer syntaxes are decoded, measured over the files of pydicom and pydicom-data: the table of docs/dicom.md.

`python -m tests.adapters.dicom_codecs_page` writes it into the page; a test compares.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from pathlib import Path

from pydicom.uid import UID

from adapters.dicom.elements import PIXELS, parse
from adapters.dicom.pixels import CODECS, DEFLATED_FRAMES, NATIVE, frames
from models.errors import BadInput
from tests.adapters.dicom_samples import package_files

PAGE = Path(__file__).parents[2] / "docs" / "dicom.md"
FRAMES = 3
"""Of each file: the tests compare all of them with pydicom's."""
BEGIN, END = "<!-- codecs: begin -->", "<!-- codecs: end -->"


def table() -> str:
    """A row a transfer syntax: files with pixels, how many were decoded, by what, why the others were not."""
    total: dict[str, int] = dict.fromkeys((*sorted(NATIVE), *CODECS, DEFLATED_FRAMES), 0)
    decoded: dict[str, int] = defaultdict(int)
    failed: dict[str, list[str]] = defaultdict(list)
    for path in package_files():
        raw = path.read_bytes()
        try:
            file = parse(raw, keep=frozenset(PIXELS))
        except BadInput:
            continue
        if file.pixels is None:
            continue
        total[file.syntax] = total.get(file.syntax, 0) + 1
        try:
            for _ in itertools.islice(frames(raw), FRAMES):
                pass
        except BadInput as error:
            failed[file.syntax].append(f"`{path.name}`: {error.what}")
        else:
            decoded[file.syntax] += 1
    lines = ["| transfer syntax | UID | by | files | decoded | not decoded |", "| --- | --- | --- | --- | --- | --- |"]
    for syntax, count in total.items():
        by = "numpy" if syntax in NATIVE else "zlib" if syntax == DEFLATED_FRAMES else ", ".join(CODECS.get(syntax, ()))
        name = "Deflated Image Frame Compression" if syntax == DEFLATED_FRAMES else UID(syntax).name
        why = "; ".join(failed[syntax])
        lines.append(f"| {name} | {syntax} | {by or 'nothing'} | {count} | {decoded[syntax]} | {why} |")
    return "\n".join(lines)


def rewritten(page: str) -> str:
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text("utf-8")), "utf-8")
