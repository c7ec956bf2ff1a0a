"""A small EHR on one page, for trying out: open a chart, see the card, accept or override it. Never real data."""
