"""CDS Hooks 2.0.1: the wire of the product.

context   what a client asks: the envelope and the context of each hook
prefetch  what came with it, whose it is, and what is missing
service   what a CDS service declares
cards     what a service answers
reasons   why a clinician may override a card
routes    discovery, call, feedback
"""
