"""The machinery of every job: settings, models, sets, the run folder, and the stages that several jobs share."""
