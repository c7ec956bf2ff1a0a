"""The arm that bytes come in through (and results go out through). Nothing here knows the store."""
