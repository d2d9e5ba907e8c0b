"""Settings for the tests that run without a broker."""

from hypothesis import HealthCheck, settings

# A busy machine is slow, not wrong: the limit on a test's time is pytest's, for the whole of it.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
