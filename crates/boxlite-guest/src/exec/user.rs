//! Resolves the user of a process by the image's own `/etc/passwd` and `/etc/group`. Pure: text in, ids out.

/// The ids of a process, and its home directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ProcessUser {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
    pub(super) home: String,
}

struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct GroupEntry<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

fn passwd_entries(text: &str) -> impl Iterator<Item = PasswdEntry<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let (name, _password) = (fields.next()?, fields.next()?);
        let (uid, gid) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let _comment = fields.next();
        (!name.is_empty()).then(|| PasswdEntry { name, uid, gid, home: fields.next().unwrap_or("") })
    })
}

fn group_entries(text: &str) -> impl Iterator<Item = GroupEntry<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let (name, _password) = (fields.next()?, fields.next()?);
        let gid = fields.next()?.parse().ok()?;
        (!name.is_empty()).then(|| GroupEntry { name, gid, members: fields.next().unwrap_or("") })
    })
}

/// Resolves `user`, `uid`, `user:group`, `uid:gid` or nothing (root), with the semantics of Docker:
/// a number need not be listed; an explicit group drops the supplementary groups of the user.
///
/// # Errors
/// One sentence that names the user or group that is not listed.
pub(super) fn resolve(
    user: &str,
    extra_groups: &[String],
    passwd: &str,
    group: &str,
) -> Result<ProcessUser, String> {
    let (user, explicit_group) = match user.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (user, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let number = user.parse::<u32>().ok().filter(|uid| i32::try_from(*uid).is_ok());
    let entry = passwd_entries(passwd).find(|entry| entry.name == user);
    let entry = entry.or_else(|| passwd_entries(passwd).find(|entry| Some(entry.uid) == number));
    let mut resolved = match (&entry, number, user) {
        (Some(entry), ..) => {
            let home = if entry.home.is_empty() { "/" } else { entry.home }.to_owned();
            ProcessUser { uid: entry.uid, gid: entry.gid, groups: Vec::new(), home }
        }
        (None, Some(uid), _) => ProcessUser { uid, gid: 0, groups: Vec::new(), home: "/".to_owned() },
        (None, None, "root") => ProcessUser { uid: 0, gid: 0, groups: Vec::new(), home: "/root".to_owned() },
        (None, None, _) => return Err(format!("the box has no user {user:?}")),
    };
    if let Some(name) = explicit_group {
        resolved.gid = group_id(name, group)?;
    } else if let Some(entry) = entry {
        let listed = |members: &str| members.split(',').any(|member| member.trim() == entry.name);
        resolved.groups.extend(group_entries(group).filter(|g| listed(g.members)).map(|g| g.gid));
    }
    for name in extra_groups {
        resolved.groups.push(group_id(name, group)?);
    }
    resolved.groups.sort_unstable();
    resolved.groups.dedup();
    Ok(resolved)
}

fn group_id(name: &str, group: &str) -> Result<u32, String> {
    let number = name.parse::<u32>().ok().filter(|gid| i32::try_from(*gid).is_ok());
    let listed = group_entries(group).find(|entry| entry.name == name).map(|entry| entry.gid);
    listed.or(number).ok_or_else(|| format!("the box has no group {name:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
                          # a comment\n\
                          web:x:33:33:www:/srv:/bin/false\n\
                          12:x:1000:1001::/home/twelve:/bin/sh\n\
                          broken:x:abc:1::/:\n\
                          bare:x:7:8\n";
    const GROUP: &str =
        "root:x:0:\nweb:x:33:\nvideo:x:44:web,root\naudio:x:45: web\nbroken:x:q:web\nwheel:x:10:root\n";

    fn id(user: &str) -> Result<ProcessUser, String> {
        resolve(user, &[], PASSWD, GROUP)
    }

    fn identity(uid: u32, gid: u32, groups: &[u32], home: &str) -> ProcessUser {
        ProcessUser { uid, gid, groups: groups.to_vec(), home: home.to_owned() }
    }

    #[test]
    fn names_and_numbers() {
        assert_eq!(id("").unwrap(), identity(0, 0, &[10, 44], "/root"));
        assert_eq!(id("root"), id("0"));
        assert_eq!(id("web").unwrap(), identity(33, 33, &[44, 45], "/srv"));
        assert_eq!(id("33"), id("web"));
        assert_eq!(id("4711").unwrap(), identity(4711, 0, &[], "/"));
        assert_eq!(id("bare").unwrap(), identity(7, 8, &[], "/"));
        assert_eq!(id("12").unwrap().uid, 1000, "a name made of digits is a name first");
    }

    #[test]
    fn an_explicit_group_drops_the_supplementary_ones() {
        assert_eq!(id("web:wheel").unwrap(), identity(33, 10, &[], "/srv"));
        assert_eq!(id("web:99").unwrap().gid, 99);
        assert_eq!(id("1:2").unwrap(), identity(1, 2, &[], "/"));
        assert_eq!(id(":44").unwrap().gid, 44);
        assert_eq!(id("web:"), id("web"));
    }

    #[test]
    fn extra_groups_are_added() {
        let extra = ["wheel".to_owned(), "77".to_owned(), "video".to_owned()];
        assert_eq!(resolve("web", &extra, PASSWD, GROUP).unwrap().groups, [10, 44, 45, 77]);
        assert!(resolve("web", &["none".to_owned()], PASSWD, GROUP).is_err());
    }

    #[test]
    fn what_is_not_listed_is_named() {
        assert!(id("nobody").unwrap_err().contains("nobody"));
        assert!(id("web:none").unwrap_err().contains("none"));
        assert!(id("broken").is_err());
        assert!(id("-1").is_err());
        assert!(id("4294967295").is_err(), "the kernel takes that for `unchanged`");
    }

    #[test]
    fn an_image_without_files_has_root_and_numbers() {
        assert_eq!(resolve("", &[], "", "").unwrap(), identity(0, 0, &[], "/"));
        assert_eq!(resolve("root", &[], "", "").unwrap().uid, 0);
        assert_eq!(resolve("5:6", &[], "", "").unwrap(), identity(5, 6, &[], "/"));
    }
}
