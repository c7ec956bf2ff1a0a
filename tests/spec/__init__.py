"""Stories in the users' words: a table in, a sentence out. `python -m tests.spec` writes docs/manual/ from them."""
