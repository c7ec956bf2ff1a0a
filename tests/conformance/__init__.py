"""CDS Hooks, statement by statement: which test shows that each is kept.

matrix   the numbered statements, the marks of the tests, and the page that is made of both
         (`python -m tests.conformance` writes docs/conformance.md)
spoilt   a CDS server that is wrong on purpose: what the black-box check must find
"""
