"""Ways out, one in each file."""
