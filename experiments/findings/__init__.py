"""Pictures of what the data check finds, from small made-up tracks."""
