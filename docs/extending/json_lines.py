"""A logger: each row of metrics.csv as a line of JSON, as other programs like to follow them."""

import json
from dataclasses import dataclass

from eprop_cli.loggers.base import Logger, LoggerConfig


@dataclass(kw_only=True)
class JsonLinesConfig(LoggerConfig):
    """file: within the run directory."""

    file: str


class JsonLines(Logger):
    """logger.NAME.name=json_lines:JsonLines."""

    Config = JsonLinesConfig

    def begin(self, directory, config, done):
        """Open the file; of a run that goes on, drop what comes again."""
        path = directory / self.keys.file
        lines = path.read_text().splitlines() if done and path.exists() else []
        self.lines = path.open("w")
        self.lines.writelines(f"{line}\n" for line in lines if json.loads(line)["iteration"] <= done)

    def row(self, row):
        """Write a line."""
        self.lines.write(json.dumps({"iteration": row.iteration, "phase": row.phase, **row.metrics}) + "\n")
        self.lines.flush()

    def end(self, status):
        """Close the file."""
        self.lines.close()
