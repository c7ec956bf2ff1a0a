"""A black-box check of any CDS Hooks server: what `cds conformance URL` does.

answers    what a 200 answer must be, told from the tables of CDS Hooks 2.0.1 and not from our own code
crd        what the Da Vinci CRD guide asks beyond that
requests   what is sent: a body for each published hook, and whether it is one
peer       how it is sent: HTTP, with a signed token where the server wants one
sound      checks 1 to 3: discovery, calls, answers (the checks of the conformance suite, by its numbers)
odd        check 4: what the suite does not look at: errors, prefetch that lacks, feedback, origins, tokens
suite      all of it, one result a check
"""
