"""What the suites beside this folder share: they start the real programs and compare what comes out.

Python's standard library only.
"""
