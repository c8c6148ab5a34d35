"""A logger: MLflow (pip install mlflow-skinny, or mlflow), where MLFLOW_TRACKING_URI says."""

import mlflow

from eprop_cli.loggers.base import Logger

ENDS = {"COMPLETED": "FINISHED", "INTERRUPTED": "KILLED", "FAILED": "FAILED"}


class MLflow(Logger):
    """logger.NAME.name=to_mlflow:MLflow."""

    def begin(self, directory, config, done):
        """Begin a run of MLflow's, with the config as its parameters."""
        mlflow.set_experiment(str(config["task.name"]))
        mlflow.start_run(run_name=directory.name)
        mlflow.log_params(config)

    def row(self, row):
        """Log its metrics."""
        mlflow.log_metrics({f"{row.phase}/{name}": value for name, value in row.metrics.items()}, step=row.iteration)

    def end(self, status):
        """End it."""
        mlflow.end_run(ENDS[status])
