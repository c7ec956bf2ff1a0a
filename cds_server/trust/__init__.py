"""What makes a caller believable: tokens, the keys that sign them, and the memory of those that were used.

    tokens     a JWT taken apart, its claims held against a registration, its signature against a key
    keysets    an issuer's keys: from a file, or fetched from a configured URL, with one bounded refetch
    published  keys that everybody can sign with
    replay     a token is good for one call, across workers and restarts

Who is asked, and in which order, is told by `hooks.trust`. joserfc is imported here only.
"""
