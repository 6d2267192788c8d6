//! `serve-key`.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use boxlite_server::key_entry;
use clap::Args;

use super::servers;
use crate::render::print;
use crate::report::{CommandFailure, Exit, Topic};

/// Random bytes of a key: nobody guesses it from its hash.
const KEY_BYTES: usize = 32;

/// Characters of a key that was not made here.
const MIN_KEY_LENGTH: usize = 32;

/// `serve-key`.
#[derive(Debug, Args)]
pub(crate) struct ServeKeyArgs {
    /// Name of the key: letters, digits, `-`, `_` and `.`
    #[arg(value_name = "NAME")]
    name: String,
    /// File for the key, which its user passes to --api-key-file; a key that is there already is kept
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Prints the entry only: limits are the operator's to add.
pub(super) fn serve_key(args: &ServeKeyArgs) -> Result<Exit, CommandFailure> {
    // A bad name must not leave a key behind.
    let entry =
        |key: &str| key_entry(&args.name, key).map_err(|error| CommandFailure::of(&error, Topic::Serving));
    entry("")?;
    let key = match made(&args.file)? {
        Some(key) => key,
        None => servers::key_in(&args.file)?,
    };
    if key.len() < MIN_KEY_LENGTH {
        let message = format!(
            "the key in {} has {} characters and could be guessed from its hash: a key has {MIN_KEY_LENGTH} at least",
            args.file.display(),
            key.len()
        );
        return Err(CommandFailure::local(message).hint("name a new file, and a key is made in it"));
    }
    print(&entry(&key)?)?;
    Ok(Exit::OK)
}

/// Makes a key in a new file that only its owner may read; `None` when the file is there already.
#[allow(clippy::disallowed_methods, reason = "a key's file is its user's, and lies in no home")]
fn made(file: &Path) -> Result<Option<String>, CommandFailure> {
    let failed = |error| CommandFailure::local(format!("writing the key {} failed: {error}", file.display()));
    let mut random = [0; KEY_BYTES];
    File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut random)).map_err(failed)?;
    let key = hex::encode(random);
    let mut created = match File::options().write(true).create_new(true).mode(0o600).open(file) {
        Ok(created) => created,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    created.write_all(format!("{key}\n").as_bytes()).and_then(|()| created.sync_all()).map_err(failed)?;
    Ok(Some(key))
}
