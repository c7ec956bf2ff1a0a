"""De-identification of what leaves the house: PS3.15 Annex E."""
