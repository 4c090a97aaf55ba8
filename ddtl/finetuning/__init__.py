"""Which stages train when, at which rate: a pure table, and the callback that applies it."""
