"""Tell TensorBoard."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from eprop_cli.loggers.base import Logger, LoggerConfig
from eprop_cli.phases import TEST
from eprop_cli.values import Row


@dataclass(kw_only=True)
class TensorBoardConfig(LoggerConfig):
    """Keys of conf/logger/tensorboard.yaml."""

    directory: str


class TensorBoard(Logger):
    """logger=tensorboard: scalars PHASE/METRIC by training iteration, of a test the means; the config as a text."""

    Config = TensorBoardConfig
    package = "tensorboard"
    remedy = "pip install '.[tensorboard]' in the checkout"

    def begin(self, directory: Path, config: Mapping[str, Any], done: int) -> None:
        """Open an event file."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event, self._summary = Event, Summary
        self._writer = EventFileWriter(str(directory / self.keys.directory))
        self._test: list[Row] = []
        if done:  # what comes again takes the place of what there was
            start = SessionLog(status=SessionLog.START)
            self._writer.add_event(Event(wall_time=time.time(), step=done + 1, session_log=start))
        self._text("config", "\n".join(f"    {key}={value}" for key, value in config.items()), done)

    def row(self, row: Row) -> None:
        """Write its metrics; batches of a test are kept until all are there."""
        if row.phase == TEST:
            self._test.append(row)
        else:
            self._scalars(row.iteration, row.phase, row.metrics | {"seconds": row.seconds})
            self._writer.flush()

    def end(self, status: str) -> None:
        """Write the means of the test and close."""
        if self._test:
            last = self._test[-1]
            means = {name: fmean(row.metrics[name] for row in self._test) for name in last.metrics}
            self._scalars(last.iteration, last.phase, means)
        self._writer.close()

    def _scalars(self, iteration: int, phase: str, metrics: Mapping[str, float]) -> None:
        values = [self._summary.Value(tag=f"{phase}/{name}", simple_value=value) for name, value in metrics.items()]
        self._writer.add_event(self._event(wall_time=time.time(), step=iteration, summary=self._summary(value=values)))

    def _text(self, tag: str, text: str, step: int) -> None:
        from tensorboard.plugins.text.metadata import create_summary_metadata
        from tensorboard.util.tensor_util import make_tensor_proto

        metadata = create_summary_metadata(display_name=tag, description="")
        value = self._summary.Value(tag=tag, tensor=make_tensor_proto([text.encode()]), metadata=metadata)
        self._writer.add_event(self._event(wall_time=time.time(), step=step, summary=self._summary(value=[value])))
