"""Measures what the documents claim of speed, beside what people do without this project.

A module is one scenario and has `RUNS` and `measure(runs)`, which returns what is printed:
`make bench NAME=gate-delay`. Nothing here judges: goals and reasons are in docs/benchmarks.md.
"""
