"""What a stack may say: sections, values, their validation.

Public face: `settings.Settings`, the whole config as one typed value, and `stack_file.load_stack`,
which reads it without Pulumi. Parsing says what has the wrong form; `deployment.review` judges.
"""
