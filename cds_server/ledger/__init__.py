"""The append-only log: leaves, chain, tree, verification. Pure: bytes in, findings out."""
