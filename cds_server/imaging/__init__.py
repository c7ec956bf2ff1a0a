"""Imaging studies: an index over the objects that landed, and what is made of a study once it has settled."""
