//! The table for a terminal, as JSON and as Markdown.
