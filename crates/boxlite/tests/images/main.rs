//! Images against programs that we did not write: umoci and skopeo make them, a real registry serves them.

mod fixture;
mod local;
