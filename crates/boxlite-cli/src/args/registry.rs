//! The arguments of commands that talk to a registry.

use clap::Args;

/// Concessions to a registry without a certificate that counts.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct RegistryArgs {
    /// Allow plain HTTP and untrusted certificates with the registry, which is sent no credentials then
    #[arg(long)]
    pub(crate) insecure: bool,
    /// Send credentials to the insecure registry all the same
    #[arg(long, requires = "insecure")]
    pub(crate) insecure_credentials: bool,
}
