//! Wire types between the host, the shim and the guest agent.
