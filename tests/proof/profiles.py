"""Hypothesis' settings: how many examples, by what runs them."""

from hypothesis import HealthCheck, settings

# No deadline: how long an example takes says nothing here. "stress" ends by time, and Hypothesis
# remembers all that a search has drawn: after so many, tests/proof/stress.py begins a new one.
for name, examples in {"tests": 50, "stress": 500}.items():
    settings.register_profile(
        name,
        max_examples=examples,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )

settings.load_profile("tests")
