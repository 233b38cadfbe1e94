"""The table of engines."""

from pipeline.registry import Entry

ENGINES = {
    "inline": Entry("pipeline.engines.inline:InlineEngine", "one trial at a time, in one persistent child process"),
    "processes": Entry(
        "pipeline.engines.processes:ProcessesEngine", "several trials at a time, each in a child process"
    ),
}
