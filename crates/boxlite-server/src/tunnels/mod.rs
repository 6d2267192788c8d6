//! Tunnels: byte streams between a client and a port inside a box.

mod grants;
mod stream;

pub(crate) use grants::{Grant, Grants};
pub(crate) use stream::{over_socket, over_websocket};
