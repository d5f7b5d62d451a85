"""What was decided about an alert, kept for as long as the alert lives."""
