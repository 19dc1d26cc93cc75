"""What a person sees of a run: the event log, the live view, TensorBoard and the HTML report.

Everything here reads a run directory, or the events of a run, as plain data; nothing here knows the
server or its objects. It may import `melissa_gen.errors` and nothing else of ours. Import what you
need from the module that holds it, so that a server which only writes events loads no plotting:
`events` (write and read `events.jsonl`), `live` (the terminal), `tensorboard`, `html` (the report).
"""

from melissa_gen.report.events import EventLog, follow, last_status, read_events, recent_events

__all__ = ["EventLog", "follow", "last_status", "read_events", "recent_events"]
