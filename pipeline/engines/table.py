"""The table of engines."""

from pipeline.registry import Entry

ENGINES = {
    "inline": Entry("pipeline.engines.inline:InlineEngine", "one trial at a time, in one persistent child process"),
}
