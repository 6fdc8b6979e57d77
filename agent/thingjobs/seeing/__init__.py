"""How the agent is, told beside its jobs: to the log, to node_exporter, and to a named shadow of the thing.

    logs         one line a fact, as text or JSON; nothing secret in it
    metrics      what is known as a Prometheus text. Pure
    shadow       what is known as the request that updates a named shadow, never more than 4 KiB. Pure
    pace         when a shadow is to be told again. Pure
    device       a look at the device: certificate, clock, disk, handlers
    textfile     the file with the metrics: when it is written, and that it is whole
    reporter     the daemon's side of it: carries the others out

But for `logs`, an agent without a section [report] imports nothing of it.
"""
