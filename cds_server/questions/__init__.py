"""What an auditor asks of the record, answered with proofs: `cds ask`, `GET /ledger/questions/...`.

`card` what made a card, who saw it, what they did · `made` what a model version did between two dates · `facts` which
cards a fact touched, and which a corrected fact touched · `proofs` each entry that an answer names, up to the signed
head · `doors` the same over HTTP. An answer names no patient and no value of a fact, unless it is asked for with them.
"""
