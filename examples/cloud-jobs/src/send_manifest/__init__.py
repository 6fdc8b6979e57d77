"""A handler that uploads a manifest for S3 Batch Operations."""
