"""Will a model fit, and what will it give: from its config.json to a plan with numbers.

Public face: `known_models.find_shape`, `plan.make_plan`, `misfits.problems_of` and `report`.
"""
