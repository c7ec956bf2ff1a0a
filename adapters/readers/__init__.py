"""Readers: a part goes in, Statements come out. Pure and re-runnable; each says which media types it reads.

A reader is one file with NAME, VERSION, MEDIA_TYPES and
 `read(part) -> list[Statement]`, found by `models.plugins.discover`.
"""
