"""Decides whether a starting server serves, from its container and its answers over HTTP.

Public face: `gate.Gate`, one wait for one start; `probe.Probe`, the requests to a server. A gate
sees its container only through `watch.Watch`; it does not depend on Docker.
"""
