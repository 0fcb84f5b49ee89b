"""DAG builders: stages as task groups, templates as functions.  They read no network and no Variables."""
