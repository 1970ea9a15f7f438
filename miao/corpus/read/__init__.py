"""From bytes to records: encodings, formats, shapes, turns."""
