"""Who may look at whose data (`roles`), what is allowed now (`allowed`), and the record of each look (`log`)."""
