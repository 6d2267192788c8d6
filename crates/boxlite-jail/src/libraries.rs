//! Which files a dynamically linked program needs to start.

use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use object::elf::FileHeader64;
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, ReadCache, ReadRef};

use crate::error::{JailDoing, JailError, JailResult as Result};

/// The program at `program`, its loader, and the libraries of the program and of each of `modules`, which the program
/// loads by itself. Each once, sorted, under the names by which the loader looks for them.
///
/// Takes some milliseconds per file, because the loader is asked: keep the answer for as long as none of these files
/// changes.
///
/// # Errors
/// When a file cannot be read or is not a 64-bit ELF file, or a library is missing.
pub fn code_of(program: &Path, modules: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut found = vec![program.to_owned()];
    found.extend_from_slice(modules);
    if let Some(loader) = loader_of(program)? {
        for file in std::iter::once(program).chain(modules.iter().map(PathBuf::as_path)) {
            found.extend(listed(&loader, file)?);
        }
        found.push(loader);
        // Without it the loader looks in its built-in directories alone.
        found.extend(Some(PathBuf::from("/etc/ld.so.cache")).filter(|cache| cache.exists()));
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// The loader that a program names; none for a static one.
fn loader_of(program: &Path) -> Result<Option<PathBuf>> {
    let not_elf = |error| JailError::new(format!("{} is not a 64-bit program: {error}", program.display()));
    let file = File::open(program).doing(format_args!("opening {}", program.display()))?;
    let data = ReadCache::new(file);
    interpreter(&data).map_err(not_elf)
}

fn interpreter<'data>(data: impl ReadRef<'data>) -> object::Result<Option<PathBuf>> {
    let header = FileHeader64::<Endianness>::parse(data)?;
    let endian = header.endian()?;
    for segment in header.program_headers(endian, data)? {
        if let Some(name) = segment.interpreter(endian, data)? {
            return Ok(Some(PathBuf::from(String::from_utf8_lossy(name).into_owned())));
        }
    }
    Ok(None)
}

/// Returns the files that `loader` would load for `file`.
fn listed(loader: &Path, file: &Path) -> Result<Vec<PathBuf>> {
    let mut command = Command::new(loader);
    command.arg("--list").arg(file).env_clear().env("LC_ALL", "C").stdin(Stdio::null());
    let output = command.output().doing(format_args!("running {}", loader.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let message = format!("the libraries of {} cannot be found: {}", file.display(), said.trim());
        return Err(JailError::new(message));
    }
    libraries_in(&text)
        .map_err(|name| JailError::new(format!("{} needs {name}, which is missing", file.display())))
}

/// The libraries that this process is loaded from, its loader among them, under the names by which the loader found them.
pub fn own_libraries() -> Vec<PathBuf> {
    extern "C" fn note(info: *mut libc::dl_phdr_info, _: usize, found: *mut libc::c_void) -> libc::c_int {
        // SAFETY: the loader passes a live entry, whose name is null or a string, and the vector is the one that is passed below.
        #[allow(unsafe_code)]
        let (name, found) = unsafe {
            let name = (*info).dlpi_name;
            if name.is_null() {
                return 0;
            }
            (std::ffi::CStr::from_ptr(name).to_bytes(), &mut *found.cast::<Vec<PathBuf>>())
        };
        // The program itself has no name here, and what the kernel maps into it no path.
        if name.starts_with(b"/") {
            found.push(PathBuf::from(std::ffi::OsStr::from_bytes(name)));
        }
        0
    }
    let mut found: Vec<PathBuf> = Vec::new();
    // SAFETY: the function is called during the call alone, and gets a vector that nothing else uses meanwhile.
    #[allow(unsafe_code)]
    unsafe {
        libc::dl_iterate_phdr(Some(note), std::ptr::from_mut(&mut found).cast());
    }
    found
}

/// The paths in what a loader lists; an error names a library that it did not find.
fn libraries_in(text: &str) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    for line in text.lines() {
        let line = line.trim();
        let (name, path) = line.split_once(" => ").unwrap_or(("", line));
        if path == "not found" {
            return Err(name.into());
        }
        let path = path.split(" (").next().unwrap_or_default();
        if path.starts_with('/') {
            found.push(PathBuf::from(path));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loaders_list_is_read_and_a_missing_library_is_named() {
        let text = "\tlinux-vdso.so.1 (0x1)\n\tlibz.so.1 => /lib/x/libz.so.1 (0x2)\n\t/lib64/ld.so (0x3)\n";
        assert_eq!(libraries_in(text).unwrap(), [Path::new("/lib/x/libz.so.1"), Path::new("/lib64/ld.so")]);
        assert_eq!(libraries_in("libq.so.1 => not found\n").unwrap_err(), "libq.so.1");
        assert!(libraries_in("\tstatically linked\n").unwrap().is_empty());
    }

    #[test]
    fn this_test_needs_its_loader_and_libc() {
        let code = code_of(&std::env::current_exe().unwrap(), &[]).unwrap();
        let named = |part: &str| code.iter().any(|path| path.to_string_lossy().contains(part));
        assert!(named("ld-linux") && named("libc.so") && named("boxlite_jail"), "{code:?}");
    }

    #[test]
    fn the_loader_lists_what_this_process_is_loaded_from() {
        let own = own_libraries();
        let listed = code_of(&std::env::current_exe().unwrap(), &[]).unwrap();
        assert!(own.len() > 1 && own.iter().all(|path| listed.contains(path)), "{own:?} {listed:?}");
    }

    #[test]
    fn what_is_not_a_program_is_an_error() {
        let error = code_of(Path::new("/etc/hostname"), &[]).unwrap_err();
        assert!(error.to_string().contains("not a 64-bit program"), "{error}");
    }
}
