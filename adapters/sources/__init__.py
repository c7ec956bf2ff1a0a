"""Ways in, one per file. Each is found by its NAME and brings deliveries to an Intake (see adapters/source.py)."""
