"""From somebody's text to records, cleaned, without doubles, mixed; and the built-in corpus."""
