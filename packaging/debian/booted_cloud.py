"""The Jobs service for try-booted: `booted_cloud.py FOLDER`.

A file FOLDER/jobs/THING.JOB is a job with that document; FOLDER/said/THING.JOB says how it stands.
"""

import json
import ssl
import sys
import time
from pathlib import Path

folder = Path(sys.argv[1])
sys.path.insert(0, str(folder / "lib"))

from thingjobs.testing import JobsService  # noqa: E402 - not installed: a copy that no upgrade replaces
from thingjobs.testing.broker import BrokerJobsService  # noqa: E402

service = JobsService()
tls = ssl.create_default_context(cafile=str(folder / "ca.pem"))
tls.load_cert_chain(folder / "cloud.pem", folder / "cloud.key")
made: set[tuple[str, str]] = set()

with BrokerJobsService(service, "localhost", 8883, tls=tls):
    while True:
        for file in (folder / "jobs").iterdir():
            thing, _, job = file.name.partition(".")
            if (thing, job) not in made:
                made.add((thing, job))
                service.create_job(job, json.loads(file.read_text()), [thing])
        for thing, job in made:
            fresh = folder / "said.new"
            execution = service.execution(thing, job)
            fresh.write_text(f"{execution.status} {json.dumps(dict(execution.details))}\n")
            fresh.rename(folder / "said" / f"{thing}.{job}")
        time.sleep(0.1)
