use super::*;
use crate::ErrorKind;

fn volumes(count: usize) -> Vec<Volume> {
    (0..count).map(|n| Volume { source: "/tmp".into(), target: format!("/{n}"), read_only: false }).collect()
}

fn no_spawn(_: Command, _: &[BorrowedFd<'_>]) -> io::Result<Child> {
    panic!("nothing is to be started")
}

#[test]
fn too_many_volumes_and_a_missing_virtiofsd_are_said_before_anything_starts() {
    let home = Path::new("/nonexistent-home");
    let error = start(&volumes(MAX_VOLUMES + 1), home, Path::new("/bin/true"), no_spawn).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let error = start(&volumes(1), home, Path::new("/nonexistent/virtiofsd"), no_spawn).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("/nonexistent/virtiofsd"), "{error}");
    assert!(start(&[], home, Path::new("/nonexistent/virtiofsd"), no_spawn).unwrap().is_empty());
}
