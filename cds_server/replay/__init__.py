"""Recorded CDS Hooks requests, played again: what came back then and what comes back now, side by side."""
