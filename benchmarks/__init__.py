"""How fast simlab is and how much memory it takes: `python -m benchmarks` (docs/benchmarks.md).

The process that prints the table imports nothing heavy: Linux counts what a parent holds when it starts a child
as the child's own peak.
"""
