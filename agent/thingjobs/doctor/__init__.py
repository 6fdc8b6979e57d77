"""The doctor: finds out why an agent with this configuration would not work here, and says what to do about it.

    findings     what is found, as values; the order of the checks, and which is skipped because of which. Pure
    rules        what observations mean: dates and clocks, disks, how far a conversation with the service came. Pure
    issuer       who signed a certificate. Pure
    surroundings what of the world can be put in the place of the real one, and how patient the checks are
    local        looks at files, the disk, handlers and the agent that runs, if one does
    network      looks for the way to the service: name, port, proxy, TLS
    ways         the agent's own ways to the service, as `thingjobs run` would go them
    service      goes them: connects, subscribes and asks for the next job, without taking it
    examination  all checks together

It goes the way that the agent goes, with the agent's own code, so that it meets what the agent would meet. It changes
nothing: no lock is taken, no file written, no job taken, and the connection of an agent that runs is left alone.
"""

from thingjobs.doctor.examination import examine, unusable
from thingjobs.doctor.findings import Finding, Mark
from thingjobs.doctor.surroundings import Patience, Surroundings

__all__ = ["Finding", "Mark", "Patience", "Surroundings", "examine", "unusable"]
