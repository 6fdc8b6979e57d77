"""thingjobs: the job agent for AWS IoT things."""

__version__ = "0.1.0"
