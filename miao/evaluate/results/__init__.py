"""What was measured, kept and compared: stores, tables, summaries."""
