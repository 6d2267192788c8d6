//! Run OCI images as small virtual machines that never fill the host.
