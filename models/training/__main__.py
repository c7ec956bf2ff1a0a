"""`python -m models.training [ROOT]`: regenerate every shipped artifact, byte for byte."""

from __future__ import annotations

import sys
from pathlib import Path

from models.shelf import SHIPPED
from models.training import (
    release_breast_cancer_recurrence,
    release_cgm_summary,
    release_cha2ds2_va,
    release_kfre,
    release_khorana,
    release_meld3,
    release_metabric_genomic,
    release_news2,
    release_npi,
    release_nuclear_morphometry,
    release_predict_breast,
)

RELEASES = (
    release_predict_breast,
    release_metabric_genomic,
    release_breast_cancer_recurrence,
    release_npi,
    release_khorana,
    release_news2,
    release_kfre,
    release_meld3,
    release_cha2ds2_va,
    release_nuclear_morphometry,
    release_cgm_summary,
)


def main(root: Path) -> None:
    for release in RELEASES:
        print(release.write(root).relative_to(root))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else SHIPPED)
