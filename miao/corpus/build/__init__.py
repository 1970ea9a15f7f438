"""From cleaned records to the files of a corpus: mix, split, output, in many processes."""
