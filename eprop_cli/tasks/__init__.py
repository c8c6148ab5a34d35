"""Turn a task config into input spikes and targets: one file per task."""
