"""What is compared and what was found: plans, outcomes, baselines, and where everyone stands."""
