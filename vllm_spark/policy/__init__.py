"""What a team may forbid: rules over declared containers, and their names for exceptions.

`policy/` at the top of the repository gives these rules to Pulumi as a policy pack. They are kept
here so that a config can name them, and so that they can be tested without Pulumi. What cannot be
deployed at all is refused by `deployment.review`, since a plain `pulumi up` runs no policy pack.
"""
