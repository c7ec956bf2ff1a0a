"""DICOM: objects (elements, headers, studies, reports, pixels) and the services that bring them."""
