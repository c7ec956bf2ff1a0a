"""Tables, the transaction, the vault, the blobs, migrations. The only door to sqlmodel."""
