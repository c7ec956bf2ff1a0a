"""Keys whose private half is public: whoever can read can sign with them, so they say nothing about who signed.

RFC 7638 thumbprints (SHA-256) of keys that sandboxes, test suites and specifications print with their private part.
"""

from __future__ import annotations

from collections.abc import Mapping

PUBLISHED: Mapping[str, str] = {
    "s9fOe-KDYD1myZ8YCzleUqJQgrYZL49kVijBxhnZvZc": "CDS Hooks sandbox, ES384",
    "WUEVfFenRfMtdDhwPUzCCfmqEN45h61hdHclwVoqfes": "CDS Hooks sandbox, ES256",
    "-UtOymI2Z0XB5SZogEZu3s5oMyQ4YaewHtR9huroTQs": "CDS Hooks specification, example, ES384",
    "RBFgQFFUIf4hfG8iUUZrf3vFZ_V2r3YRGPx9nKJXk5M": "Inferno test suites, ES384",
    "Q7fgcIzqt0bVAKsWaw_FyUFSDDpOTfsGdGtjJmAnzFY": "Inferno test suites, RS384",
    "I99tVmIhN2uhvx12lO4Zrjk9OhGDH6LvIyYALIZivws": "SMART App Launch specification, example, RS384",
    "oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U": "RFC 7515, appendix A.3, ES256",
    "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs": "RFC 7638, section 3.1, RS256",
}
"""Thumbprint -> where it is printed."""
