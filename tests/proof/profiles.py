"""Hypothesis' settings, as profiles for the tests and for `make stress`."""

from hypothesis import HealthCheck, settings

# There is no deadline, for the time of an example says nothing here. Hypothesis remembers all that
# a search has drawn, so that tests/proof/stress.py, which ends by time, begins a new one after 500.
for name, examples in {"tests": 50, "stress": 500}.items():
    settings.register_profile(
        name,
        max_examples=examples,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )

settings.load_profile("tests")
