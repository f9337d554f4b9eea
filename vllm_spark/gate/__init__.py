"""Does a starting server serve: its container on one side, its answers over HTTP on the other.

Public face: `gate.Gate`, one wait for one start; `probe.Probe`, the questions to a server. A gate
asks after its container through `watch.Watch`, and knows no Docker.
"""
