"""A sweep's storage: Optuna's studies, the journal, tasks and their outcomes, the record."""
