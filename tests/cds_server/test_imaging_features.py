"""From an archive's objects to facts that a model can ask for, with the pictures behind them."""

from __future__ import annotations

import hashlib

from adapters.imaging.catalogue import SYSTEM
from adapters.readers.examination import MEDIA_TYPE as EXAMINATION
from cds_server.store.store import Store
from tests.adapters.imaging_made import ball, objects, segmentation, series
from tests.cds_server.stores import land_parts
from tests.cds_server.test_imaging import MEDIA_TYPE, imaging, open_types


def test_a_segmented_series_becomes_facts_that_name_their_picture(store: Store) -> None:
    rows = series()
    for body in objects(*rows, segmentation(rows, [ball()])).values():
        land_parts(store, [body], media_type=MEDIA_TYPE)
    work = imaging(store)
    while work.some():
        pass
    # the segment's own, the quality of the series, the features
    assert open_types(store) == {"Patient": 1, "ImagingStudy": 1, "Observation": 3, "Media": 3}
    record = store.reads.one("SELECT id FROM patient_record")[0]
    (volume,) = store.reads.facts([record], frozenset({f"{SYSTEM}|YEKZ"}))
    assert (volume.number, volume.unit, volume.status) == (f"{ball().sum() * 2 * 0.75**2:g}", "mm3", "preliminary")
    study, picture, segment = volume.derived_from
    assert study.startswith("ImagingStudy/")
    assert (segment,) == volume.focus
    ref = store.reads.one("SELECT ref FROM landing WHERE media_type = ?", (EXAMINATION,))[0]
    assert volume.source.landing == ref
    landing = store.reads.landing(store.reads.one("SELECT id FROM landing WHERE ref = ?", (ref,))[0])
    assert landing is not None
    with store.stream(landing, 1) as stream:
        png = stream.read()
    assert picture == f"Media/png-{hashlib.sha256(png).hexdigest()[:32]}"
    assert png.startswith(b"\x89PNG")
