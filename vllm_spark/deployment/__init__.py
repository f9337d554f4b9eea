"""A server's command and environment, and the judgement of a deployment before and after.

Public face: `review.review` before a deployment, `serving` for command and environment, `drift`
and `last_good` afterwards, `tenants` for other containers on the GPU. The code here makes no
requests: Docker's answers are arguments.
"""
