"""`python -m models.training [ROOT]`: regenerate every shipped artifact, byte for byte."""

from __future__ import annotations

import sys
from pathlib import Path

from models.shelf import SHIPPED
from models.training import release_predict_breast


def main(root: Path) -> None:
    for release in (release_predict_breast,):
        print(release.write(root).relative_to(root))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else SHIPPED)
