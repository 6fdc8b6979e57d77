"""The thingjobs handler ab-firmware: a package of its own, outside of the agent's tree."""
