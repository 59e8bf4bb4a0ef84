"""Every error this product raises on purpose.

An error carries data, and its text says what was found, what was expected and what to do. Only the Dagster
wrappers turn one into a `dagster.Failure`; only the command line turns one into an exit status.
"""


class LoyaltyError(Exception):
    """The root: something an operator or a caller can act on."""


class ConfigurationError(LoyaltyError):
    """A setting, an environment variable or a file is missing or wrong."""
