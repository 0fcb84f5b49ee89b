"""What an apply would change: resources, and the revisions, DAGs, schedules and deployments that follow from them."""
