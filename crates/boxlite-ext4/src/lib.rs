//! OCI layers to one deterministic ext4 image.
