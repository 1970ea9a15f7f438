"""What stands twice, or stands in an evaluation set."""
