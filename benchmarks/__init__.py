"""Measures the speed that the documents claim, next to the usual alternatives.

A module is one scenario and has `RUNS` and `measure(runs)`, which returns a Markdown table for
`make bench NAME=gate-delay`. Nothing here passes or fails: docs/benchmarks.md has the goals.
"""
