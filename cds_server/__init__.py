"""The door, the store, the record. Wires everything; the only writer."""

__version__ = "0.1.0"
