"""The thingjobs handler model-update: a package of its own, outside of the agent's tree."""
