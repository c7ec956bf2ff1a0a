"""The nouns, the features and the scoring. No HTTP, no SQL, no sockets."""
