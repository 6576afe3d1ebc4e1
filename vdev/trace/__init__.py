"""Trace files: the event stream, written down for a program (JSON lines) or for a person (Perfetto)."""

from vdev.trace.jsonl import JsonLinesWriter, read_json_lines
from vdev.trace.trace_file import TraceFile, open_trace

__all__ = ["JsonLinesWriter", "TraceFile", "open_trace", "read_json_lines"]
