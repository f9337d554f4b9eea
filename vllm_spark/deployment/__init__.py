"""What a server's container is told, and what can be said of it before and after.

Public face: `review.review` before a deployment, `serving` for command and environment, `drift`
and `last_good` afterwards, `tenants` for who else is on the GPU. It asks nobody: Docker's answers
are arguments.
"""
