"""The version of this package, for all who record it."""

VERSION = "0.1.0"
