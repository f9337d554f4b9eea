"""Everything that talks to a Docker daemon, and the one way to it (`connection`).

Public face: `connection.connect`, `preflight.Preflight`, `memory_wait.make_room`,
`wait_for_answer.wait_for_answer` and `drift.drift_lines`.
"""
