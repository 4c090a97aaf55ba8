"""What runs trials: worker processes, one trial, stopping, reports to the pruner, progress."""
