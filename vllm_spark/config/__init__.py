"""The config of a stack: its keys, their values, and their validation.

Public face: `settings.Settings`, the whole config as one typed value, and `stack_file.load_stack`,
which reads it without Pulumi. This room checks form only; `deployment.review` checks whether flags
and memory make sense.
"""
