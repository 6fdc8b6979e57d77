"""Looks at jobs in the cloud and changes them: those of S3 Batch Operations and those of AWS Batch.

Region and account come from --region and --account, else from the configuration, else from AWS_REGION and
AWS_ACCOUNT_ID. The credentials are the device's own where [cloud] has a role_alias, else those of the standard AWS
environment: variables, or AWS_PROFILE and ~/.aws/credentials. AWS_ENDPOINT_URL_S3_CONTROL, AWS_ENDPOINT_URL_BATCH,
AWS_ENDPOINT_URL, AWS_CA_BUNDLE, AWS_USE_FIPS_ENDPOINT and AWS_USE_DUALSTACK_ENDPOINT count, for the agent's handlers,
too; an endpoint that is given is used as it is. What [cloud] allows job documents does not bind you.

Exit code: 0 done, or the service took the request; 1 it came out otherwise; 2 the call or the configuration is wrong;
130 Ctrl-C: the job in the cloud goes on.
"""

from __future__ import annotations

import importlib
from typing import Any

from thingjobs.cli import options, print_help

#: The services in the order of the help, and the module of each.
SERVICES = {"s3-jobs": "s3_jobs", "batch-jobs": "batch_jobs"}


def add_to(commands: Any) -> None:
    """Add this command and what it can do."""
    parser = options.new_parser(commands, "cloud", "look at jobs in the cloud, confirm and cancel them", __doc__)
    parser.set_defaults(command=print_help)
    services = parser.add_subparsers(title="services", metavar="SERVICE")
    for module in SERVICES.values():
        importlib.import_module(f"{__name__}.{module}").add_to(services)
