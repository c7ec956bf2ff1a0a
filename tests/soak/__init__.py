"""Long runs that nobody wants in every test run; the short forms of them are tests like others."""
