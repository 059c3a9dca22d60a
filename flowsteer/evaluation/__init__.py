"""What teacher and students are worth: every way of sampling, judged on the same prompts."""
