"""Cloud-side jobs: S3 Batch Operations and AWS Batch, asked and changed from a device.

    keeper = Keeper(role_alias.source(RoleAlias(endpoint, alias, certificate, key, thing)))
    caller = Caller(keeper, Line(ca=bundle))
    jobs = S3Batch(caller, endpoints.s3_control(Place("eu-west-1"), "123456789012"), "123456789012")
    jobs.confirm("00e123a4-c0d8-41f4-a0eb-b46f9ba5b07c", "the manifest is there")

Values and decisions are pure: `errors`, `calls`, `endpoints`, `replies`, `markup`, `words`, `s3_jobs`, and what
`s3_batch` and `batch` send and read, so a dry run can print `Call`s without requests being imported. `web` is the one
door to the network, `caller` the one place that tries again. All of it knows nothing of device jobs: what a cloud job's
end means for one is for handlers to say. Nothing that an idle agent runs imports this package.
"""
