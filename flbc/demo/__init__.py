"""Data and models that the bundled apps train; small, real, and shipped with the package."""
