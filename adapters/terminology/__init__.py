"""Code maps, value sets and units. Each data file states its scope and where its facts come from."""
